"""The result of a command."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True, slots=True)
class CommandResult:
    """Values for ``--json``, a function that prints them for people, and the exit code."""

    values: dict[str, Any]
    show: Callable[[Console], None]
    exit_code: int = 0
