"""The program that spark-submit starts on EMR: the same command line, with its log and its result left in storage.

    spark-submit emr_step.py FOLDER S3 COMMAND …

S3 is the client's :class:`fruits.storage.s3.settings.S3Settings` as JSON, without a secret. FOLDER gets
``stderr.txt`` while the command runs, so that it can be followed from afar, and at the end ``result.json``:
``{"exit_code": …, "answer": …}``, the answer being what ``fruits COMMAND … --json`` prints.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import entry_points
from pathlib import Path
from typing import NoReturn

from fruits.storage.folder import Folder
from fruits.storage.s3.settings import S3Settings

__all__ = ["main"]

LOG, RESULT = "stderr.txt", "result.json"
SECONDS = 5.0  # between two looks at the log


def main(arguments: Sequence[str]) -> NoReturn:
    """Run one command and exit as it does."""
    S3Settings(**json.loads(arguments[1])).apply()
    folder, words = Folder.at(arguments[0]), [*arguments[2:], "--json"]
    with tempfile.TemporaryDirectory(prefix="fruits-step-") as temporary:
        answer, log = Path(temporary, "stdout"), Path(temporary, "stderr")
        with _to_file(1, answer), _to_file(2, log) as terminal, _followed(log, folder, terminal):
            code = _exit_code(words)
        said = answer.read_text("utf-8")
        folder.write_json(RESULT, {"exit_code": code, "answer": json.loads(said) if said.strip() else None})
    sys.exit(code)


def _exit_code(words: Sequence[str]) -> int:
    (fruits,) = entry_points(group="console_scripts", name="fruits")
    try:
        fruits.load()(words)
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 1
    return 0


@contextmanager
def _to_file(number: int, path: Path) -> Iterator[int]:
    """Send what is written to a file descriptor to a file; what comes out is where it went before."""
    kept = os.dup(number)
    opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(opened, number)
    os.close(opened)
    try:
        yield kept
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os.dup2(kept, number)
        os.close(kept)


@contextmanager
def _followed(log: Path, folder: Folder, terminal: int) -> Iterator[None]:
    """Copy the log to storage and to the terminal, while the command runs and once more at its end."""
    shown = 0
    ended = threading.Event()

    def copy() -> None:
        nonlocal shown
        content = log.read_bytes()
        if len(content) > shown:
            os.write(terminal, content[shown:])
            shown = len(content)
            with suppress(OSError):  # a copy that fails must not end the job; the next has all of it
                folder.write(LOG, content)

    def follow() -> None:
        while not ended.wait(SECONDS):
            copy()

    follower = threading.Thread(target=follow, name="fruits-step-log", daemon=True)
    follower.start()
    try:
        yield
    finally:
        ended.set()
        follower.join()
        sys.stderr.flush()
        copy()


if __name__ == "__main__":
    main(sys.argv[1:])
