"""What a command of the command line returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Answer"]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command found: as values for ``--json``, and as a picture for people."""

    values: dict[str, Any]
    show: Callable[[Console], None]
    exit_code: int = 0
