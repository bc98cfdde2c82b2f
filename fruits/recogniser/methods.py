"""Methods of training."""

from __future__ import annotations

from typing import Literal, TypeAlias

Method: TypeAlias = Literal["prototypes", "linear"]  # for each label: several directions, or one

METHODS: tuple[Method, ...] = ("prototypes", "linear")
