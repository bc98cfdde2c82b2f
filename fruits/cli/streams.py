"""Standard streams of a command: results go to stdout, errors and everything else to stderr."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fruits.cli.result import CommandResult

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["escape_lines", "reserved_stdout", "write_result"]

PIPE_WIDTH = 10_000  # columns; wide enough that no line wraps where a program reads it


def write_result(result: CommandResult, *, as_json: bool, log_json: bool) -> None:
    """Write a result to stdout, and an error to stderr, or as the last event of the JSON log."""
    from rich.console import Console

    terminal = sys.stdout.isatty()
    stdout = Console(highlight=False, width=None if terminal else PIPE_WIDTH)
    failed = "error" in result.values
    if failed:
        _report_error(result, Console(stderr=True, highlight=False), log_json=log_json)
    with stdout.capture() as captured:
        if as_json:
            import orjson

            from fruits.text import utf8

            stdout.out(orjson.dumps(utf8(result.values), option=orjson.OPT_INDENT_2).decode())
        elif not failed:
            result.show(stdout)
    text = captured.get() if terminal else re.sub(r" +$", "", captured.get(), flags=re.MULTILINE)
    try:
        encoding = sys.stdout.encoding or "utf-8"
        sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
        sys.stdout.flush()
    except BrokenPipeError:  # the reader closed the pipe early, as `head` does; the command itself succeeded
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _report_error(result: CommandResult, stderr: Console, *, log_json: bool) -> None:
    if not log_json:
        result.show(stderr)
        return
    from fruits.progress.json_log import JsonLog

    error = result.values["error"]
    JsonLog().event("error", error["message"], type=error["type"], exit_code=error["exit_code"])


def escape_lines(text: str) -> str:
    """Escape the control characters of each line: names of files must not control the terminal."""
    from fruits.text import printable

    return "\n".join(map(printable, text.split("\n")))


@contextmanager
def reserved_stdout(reserved: bool) -> Iterator[None]:
    """Reserve stdout for one JSON object: redirect the output of libraries and child processes to stderr."""
    if not reserved:
        yield
        return
    sys.stdout.flush()
    saved = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(saved, 1)
        os.close(saved)
