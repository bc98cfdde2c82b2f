"""The entry point of the command line: parse, run one command, report its result or error, exit.

Only modules that ``fruits --help`` needs are imported here; each command imports the rest (0.5 s at most for help).
"""

from __future__ import annotations

import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from fruits.cli.app import app
from fruits.cli.result import CommandResult
from fruits.cli.streams import open_standard_streams, reserved_stdout, write_result
from fruits.cli.values import check_current_folder, name_options
from fruits.errors import FruitsError
from fruits.text import canonical, without_secrets

if TYPE_CHECKING:
    from rich.console import Console

RESUMABLE = {"run", "fit", "transform", "train", "evaluate", "predict", "demo"}  # with --out
STOPPED = {128 + signal.SIGINT, 128 + signal.SIGTERM}


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command and exit: 0 success, 1 failed job, 2 bad input, 130 or 143 stopped by a signal."""
    open_standard_streams()
    argv = list(map(canonical, sys.argv[1:]) if arguments is None else arguments) or ["--help"]
    # These three apply to usage errors too, so they are read before parsing.
    as_json, log_json, debug = "--json" in argv, "--log-json" in argv, "--debug" in argv
    with reserved_stdout(as_json), _sigterm_as_exception():
        result = _run(argv, debug)
    if result is not None:
        try:
            write_result(result, as_json=as_json, log_json=log_json)
        except FruitsError as error:  # the job is complete, but its rows cannot be read back for display
            result = _failure(error, name_options(str(error)), error.exit_code, debug)
            write_result(result, as_json=as_json, log_json=log_json)
    sys.exit(0 if result is None else result.exit_code)


def _run(argv: list[str], debug: bool) -> CommandResult | None:
    """Return the result of a command, or its error; None if the parser printed the output itself (``--help``)."""
    try:
        check_current_folder()
        returned = app(argv, prog_name="fruits", standalone_mode=False)
    except FruitsError as error:
        return _failure(error, name_options(str(error)), error.exit_code, debug)
    except typer.TyperException as error:
        return _failure(error, _usage(error), 2, debug)
    except KeyboardInterrupt:
        returned = 128 + signal.SIGINT  # the value that typer returns for a Ctrl-C that it catches
    except _Terminated:
        returned = 128 + signal.SIGTERM
    except Exception as error:
        message = f"{type(error).__name__}: {error}\nUnexpected error. Add --debug to show the traceback."
        return _failure(error, message, 1, debug)
    if isinstance(returned, CommandResult):
        return returned
    if returned in STOPPED:
        message = "Stopped."
        if argv[0] == "pack":
            message += " The archives are incomplete: run the command again with --overwrite."
        elif argv[0] in RESUMABLE and any(word.startswith("--out") for word in argv):
            message += " Completed work is kept: run the same command again to resume."
        return CommandResult(_error("Stopped", message, returned), lambda console: console.print(message), returned)
    return None


def _failure(error: Exception, message: str, exit_code: int, debug: bool) -> CommandResult:
    message = without_secrets(message)

    def show(console: Console) -> None:
        from rich.text import Text

        if debug:
            console.print(without_secrets("".join(traceback.format_exception(error))), soft_wrap=True)
        console.print(Text("Error:", "bold red"), message, soft_wrap=not console.is_terminal)

    return CommandResult(_error(type(error).__name__, message, exit_code), show, exit_code)


def _error(kind: str, message: str, exit_code: int) -> dict[str, Any]:
    return {"error": {"type": kind, "message": message, "exit_code": exit_code}}


def _usage(error: typer.TyperException) -> str:
    """Return the message of a usage error, with the commands that exist and the help to read."""
    message, context = error.format_message(), getattr(error, "ctx", None)
    if message.startswith("No such command"):
        group: Any = context.command if context is not None else typer.main.get_command(app)
        message += f" Allowed: {', '.join(group.commands)}."
    if message.startswith("Got unexpected extra argument") and ".tar" in message:
        message += " Quote the pattern of archives, so that the shell does not expand it: 'shards/*.tar'."
    return message if context is None else f"{message}\nSee {context.command_path} --help."


class _Terminated(BaseException):
    """SIGTERM as an exception, so that open clusters and files are closed."""


@contextmanager
def _sigterm_as_exception() -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> NoReturn:
        raise _Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    main()
