"""The program that spark-submit starts on EMR: it runs a ``fruits`` command and stores its log and its result.

    spark-submit emr_step.py FOLDER S3 COMMAND …

S3 is the client's :class:`fruits.storage.s3.settings.S3Settings` as JSON, without secrets. While the command runs, its
stderr is copied to FOLDER/stderr.txt, which the client follows. At the end, FOLDER/result.json is written:
``{"exit_code": …, "answer": …}``, with the output of ``fruits COMMAND … --json`` as the answer.
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

LOG, RESULT = "stderr.txt", "result.json"
SUBMITTED = "spark-submit"  # a cluster that the client names, and that is known only here
COPY_SECONDS = 5.0  # between two copies of the log


def main(arguments: Sequence[str]) -> NoReturn:
    """Run one command, and exit with its exit code."""
    S3Settings(**json.loads(arguments[1])).apply()
    folder, argv = Folder.at(arguments[0]), [*arguments[2:], "--json"]
    with tempfile.TemporaryDirectory(prefix="fruits-step-") as temporary:
        if SUBMITTED in argv:
            argv += ["--cluster-file", str(_cluster_file(Path(temporary, "cluster.yaml")))]
        output, log = Path(temporary, "stdout"), Path(temporary, "stderr")
        with _redirected(1, output), _redirected(2, log) as terminal, _copied(log, folder, terminal):
            code = _exit_code(argv)
        answer = output.read_text("utf-8")
        folder.write_json(RESULT, {"exit_code": code, "answer": json.loads(answer) if answer.strip() else None})
    sys.exit(code)


def _cluster_file(path: Path) -> Path:
    """Write the cluster `SUBMITTED`: the master that spark-submit was given, such as by EMR Serverless."""
    from pyspark.java_gateway import launch_gateway  # connects to the Java process of spark-submit

    master = launch_gateway().jvm.java.lang.System.getProperty("spark.master")
    path.write_text(f"clusters:\n  {SUBMITTED}: {{backend: spark, address: {json.dumps(master)}}}\n", encoding="utf-8")
    return path


def _exit_code(argv: Sequence[str]) -> int:
    (fruits,) = entry_points(group="console_scripts", name="fruits")
    try:
        fruits.load()(argv)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 1
    return 0


@contextmanager
def _redirected(number: int, path: Path) -> Iterator[int]:
    """Redirect a file descriptor to a file; yield a descriptor of its original target."""
    original = os.dup(number)
    opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(opened, number)
    os.close(opened)
    try:
        yield original
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os.dup2(original, number)
        os.close(original)


@contextmanager
def _copied(log: Path, folder: Folder, terminal: int) -> Iterator[None]:
    """Copy the log to storage and to the terminal every few seconds, and once more at the end."""
    copied = 0
    ended = threading.Event()

    def copy() -> None:
        nonlocal copied
        content = log.read_bytes()
        if len(content) > copied:
            os.write(terminal, content[copied:])
            copied = len(content)
            with suppress(OSError):  # a failed copy must not fail the job; the next one is complete
                folder.write(LOG, content)

    def copy_periodically() -> None:
        while not ended.wait(COPY_SECONDS):
            copy()

    thread = threading.Thread(target=copy_periodically, name="fruits-step-log", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        sys.stderr.flush()
        copy()


if __name__ == "__main__":
    main(sys.argv[1:])
