"""The names that others may rely on."""

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
    for house in ("fruits", "backends")
    for path in (ROOT / house).rglob("*.py")
    if not path.stem.startswith("_") or (path.stem == "__init__" and "__all__" in path.read_text("utf-8"))
)


def test_fruits_offers_what_is_documented_and_no_more() -> None:
    assert set(fruits.__all__) == PUBLIC | VERSION
    assert len(fruits.__all__) == len(PUBLIC | VERSION)
    assert set(dir(fruits)) >= PUBLIC


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_a_public_name_is_loaded_when_it_is_used(name: str) -> None:
    value = getattr(fruits, name)
    assert value.__name__ == name
    assert value.__module__.startswith("fruits.")
    assert value.__doc__


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'fruits' has no attribute 'nonsuch'"):
        fruits.nonsuch  # noqa: B018 - looking it up is what is tested


@pytest.mark.parametrize("name", MODULES)
def test_every_name_of_all_exists_and_is_the_modules_own(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__all__
    assert len(set(module.__all__)) == len(module.__all__)
    missing = [public for public in module.__all__ if not hasattr(module, public)]
    assert missing == []
