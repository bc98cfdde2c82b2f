"""Standard streams of a command: results go to stdout, errors and everything else to stderr."""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fruits.cli.result import CommandResult
from fruits.errors import StorageError

PIPE_WIDTH = 10_000  # columns; wide enough that no line wraps where a program reads it


class _LossyFile(io.FileIO):
    """A file that drops what cannot be written to it, such as to a full disk or a pipe that was closed."""

    def write(self, data: Any, /) -> int:
        """Write bytes, and return their number."""
        try:
            return super().write(data)
        except OSError:
            return len(data)


def open_standard_streams() -> None:
    """Open the standard streams that the parent closed on the null device, and make losses on stderr harmless.

    Without a stream, the next file or socket would get its descriptor, and libraries and child processes write to it.
    A job is finished, and its exit code given, also when nobody receives its progress.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
            os.set_inheritable(number, True)
            setattr(sys, name, open(number, "r" if name == "stdin" else "w", encoding="utf-8", closefd=False))
    stderr = sys.__stderr__
    if stderr is not None and stderr is sys.stderr:
        file = io.BufferedWriter(_LossyFile(stderr.fileno(), "w", closefd=False))
        sys.stderr = io.TextIOWrapper(file, stderr.encoding, stderr.errors, line_buffering=True)


def write_result(result: CommandResult, *, as_json: bool, log_json: bool) -> None:
    """Write a result to stdout, and an error to stderr, or as the last event of the JSON log.

    Raises
    ------
    FruitsError
        The rows of the result cannot be read, or stdout cannot be written.
    """
    failed = "error" in result.values
    if failed:
        _report_error(result, log_json=log_json)
    try:
        text = _json(result) if as_json else "" if failed else _shown(result)
        if not text:
            return
        encoding = sys.stdout.encoding or "utf-8"
        sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
        sys.stdout.flush()
    except BrokenPipeError:  # the reader closed the pipe early, as `head` does; the command itself succeeded
        _discard_stdout()
    except OSError as error:
        _discard_stdout()
        raise StorageError(
            f"the result cannot be written to stdout: {error.strerror or error}. The command itself has finished."
        ) from error


def _discard_stdout() -> None:
    """Redirect stdout, also what is still in its buffer, to the null device."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _json(result: CommandResult) -> str:
    import orjson

    from fruits.text import printable_json, utf8

    data = orjson.dumps(utf8(result.values), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    return printable_json(data.decode())


def _shown(result: CommandResult) -> str:
    """Return a result as text for people, without trailing spaces where a program reads it."""
    from fruits.progress.console import SafeConsole

    terminal = sys.stdout.isatty()
    stdout = SafeConsole(width=None if terminal else PIPE_WIDTH)
    with stdout.capture() as captured:
        result.show(stdout)
    return captured.get() if terminal else re.sub(r" +$", "", captured.get(), flags=re.MULTILINE)


def _report_error(result: CommandResult, *, log_json: bool) -> None:
    if not log_json:
        from fruits.progress.console import SafeConsole

        result.show(SafeConsole(stderr=True))
        return
    from fruits.progress.json_log import JsonLog

    error = result.values["error"]
    JsonLog().event("error", error["message"], type=error["type"], exit_code=error["exit_code"])


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
