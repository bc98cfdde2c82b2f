"""Methods of training."""

from __future__ import annotations

from typing import Literal, TypeAlias

__all__ = ["METHODS", "Method"]

Method: TypeAlias = Literal["prototypes", "linear"]  # for each label: several directions, or one

METHODS: tuple[Method, ...] = ("prototypes", "linear")
