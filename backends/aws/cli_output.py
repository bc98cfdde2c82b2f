"""Output of ``fruits cluster``: text, tables and questions."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import typer

from fruits.errors import SettingsError

if TYPE_CHECKING:
    from rich.console import Console


def confirm(question: str) -> bool:
    """Ask a question on the terminal.

    Raises
    ------
    SettingsError
        Stdin is not a terminal.
    """
    if not sys.stdin.isatty():
        raise SettingsError(
            f"{question} Cannot ask: stdin is not a terminal. Give --yes to agree, or --dry-run to preview."
        )
    try:
        return typer.confirm(question, err=True)
    except typer.Abort:  # typer's exception for Ctrl-C
        raise KeyboardInterrupt from None


def show(output: Callable[[Console], None]) -> None:
    """Print to stderr before a question; stdout is for the result."""
    from fruits.progress.console import SafeConsole

    output(SafeConsole(stderr=True))


def text(content: str) -> Callable[[Console], None]:
    """Return a function that prints text without markup."""
    return lambda console: console.print(content, soft_wrap=True)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Callable[[Console], None]:
    """Return a function that prints a table."""

    def show(console: Console) -> None:
        from rich.table import Table

        grid = Table(box=None, pad_edge=False)
        for name in columns:
            grid.add_column(name, overflow="fold")
        for row in rows:
            grid.add_row(*row)
        console.print(grid)

    return show
