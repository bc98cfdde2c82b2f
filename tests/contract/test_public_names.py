"""The public names of the packages."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest

import fruits

ROOT = Path(__file__).resolve().parents[2]
PUBLIC = {
    *("Comparison", "Executor", "FruitsError", "InputError", "Job", "JobError", "Report", "ScaledPCA"),
    *("Recogniser", "Recognition", "SliceReport", "compare", "features", "fit", "run", "transform"),
    *("Evaluation", "Training", "TrainingReport", "evaluate", "predict", "train", "write_report"),
}
VERSION = {"__version__"}
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for package in ("fruits", "backends")
    for path in (ROOT / package).rglob("*.py")
    if not path.stem.startswith("_") or (path.stem == "__init__" and "__all__" in path.read_text("utf-8"))
)


def test_fruits_exports_exactly_the_documented_names() -> None:
    assert set(fruits.__all__) == PUBLIC | VERSION
    assert len(fruits.__all__) == len(PUBLIC | VERSION)
    assert set(dir(fruits)) >= PUBLIC


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_a_public_name_is_imported_on_first_use(name: str) -> None:
    value = getattr(fruits, name)
    assert value.__name__ == name
    assert value.__module__.startswith("fruits.")
    assert value.__doc__


def test_an_unknown_name_raises_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'fruits' has no attribute 'nonsuch'"):
        fruits.nonsuch  # noqa: B018 - the look-up is under test


def test_errors_name_parameters_and_not_options() -> None:
    """The command line shows `` `out` `` as ``--out``; other folders than these belong to the command line alone."""
    modules = [*(ROOT / "backends" / "dask").glob("*.py"), *(ROOT / "backends" / "spark").glob("*.py")]
    for folder in ("storage", "images", "network", "model", "jobs"):
        modules += (ROOT / "fruits" / folder).rglob("*.py")
    modules += [
        ROOT / "fruits" / "executor.py",
        ROOT / "fruits" / "image_features.py",
        *(ROOT / "backends").glob("*.py"),
    ]
    texts = [
        (path.name, node.lineno, text.value)
        for path in modules
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Raise | ast.Return)
        for text in ast.walk(node)
        if isinstance(text, ast.Constant) and isinstance(text.value, str)
    ]
    commands = ("nthreads", "fruits fit ", "fruits cluster ")  # command lines to start
    texts = [text for text in texts if not any(command in text[2] for command in commands)]
    assert [text for text in texts if re.search(r"(?<!\w)--[a-z]", text[2])] == []
    assert len([text for text in texts if re.search(r"`(out|overwrite|components)`", text[2])]) > 10


@pytest.mark.parametrize("name", MODULES)
def test_every_module_defines_all_names_that_it_exports(name: str) -> None:
    module = importlib.import_module(name)
    exported = getattr(module, "__all__", [])  # packages only: an underscore marks the private names of a module
    assert len(set(exported)) == len(exported)
    missing = [public for public in exported if not hasattr(module, public)]
    assert missing == []
