"""The public names of the packages."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

import fruits

ROOT = Path(__file__).resolve().parents[2]
PUBLIC = {
    *("Comparison", "Executor", "FruitsError", "InputError", "Job", "JobError", "Report", "ScaledPCA"),
    *("SliceReport", "compare", "fit", "run", "transform"),
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


@pytest.mark.parametrize("name", MODULES)
def test_every_module_defines_all_names_that_it_exports(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__all__
    assert len(set(module.__all__)) == len(module.__all__)
    missing = [public for public in module.__all__ if not hasattr(module, public)]
    assert missing == []
