"""Checks and conversions of the parameters of the Python API: paths, numbers of NumPy, and wrong types."""

from __future__ import annotations

import os
from collections.abc import Collection
from numbers import Integral, Real
from typing import Any, NoReturn

from fruits.errors import SettingsError
from fruits.text import brief, canonical, quoted


def address(name: str, value: Any) -> str:
    """Return an address that was given as text or as a path object.

    Raises
    ------
    SettingsError
        It is neither; also below.
    """
    if isinstance(value, os.PathLike):
        value = canonical(os.fspath(value))
    return value if isinstance(value, str) else _refuse(name, value, "a local path, or a URL as text")


def whole_number(name: str, value: Any) -> int:
    """Return an integer that was given as one of Python or NumPy."""
    if isinstance(value, Integral) and not isinstance(value, bool):
        return int(value)
    return _refuse(name, value, "a whole number")


def switch(name: str, value: Any) -> bool:
    """Return a truth value; the text ``"no"`` would be true."""
    return value if isinstance(value, bool) else _refuse(name, value, "True or False")


def check_fraction(name: str, value: Any) -> None:
    """Raise unless a value is a number from 0 to 1, which NaN is not."""
    if not isinstance(value, Real) or isinstance(value, bool) or not 0 <= float(value) <= 1:
        _refuse(name, value, "0 to 1")


def check_choice(name: str, value: object, allowed: Collection[str]) -> None:
    """Raise unless a value is one of a few names."""
    if value not in allowed:
        raise SettingsError(f"`{name}` = {brief(value)}: not known. Allowed: {', '.join(allowed)}.")


def _refuse(name: str, value: object, allowed: str) -> NoReturn:
    raise SettingsError(f"`{name}` = {quoted(value)}: not allowed. Allowed: {allowed}.")
