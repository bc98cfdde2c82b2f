"""Decoding in a process of its own, which a picture can end without ending the worker.

A decoder is native code, and one that crashes takes its process with it: that is the only way to find out which
picture does it. It costs a copy of every picture between two processes, so it is done where a worker has died already.
The process is started anew, and not forked: forks of a process with many threads, as workers have, may lock up.
"""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
from types import TracebackType
from typing import IO, TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fruits.images.decode import ImageError, decode

if TYPE_CHECKING:
    from typing import Self

__all__ = ["IsolatedDecoder"]

ASKED = struct.Struct("<QI")  # the bytes of the file that follows; the size of the pixels
ANSWERED = struct.Struct("<?Q")  # whether pixels follow, or reason and detail of an ImageError; how many bytes
READY = b"!"  # what a process says first: one that dies before has not died of a picture
DEATHS = 2  # at one picture: a process may be killed by something else, but hardly at the same picture again


class IsolatedDecoder:
    """:func:`fruits.images.decode.decode` in a process of its own. A context manager that ends that process."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(self, data: bytes, size: int = 224) -> NDArray[np.uint8]:
        """Return the same pixels as :func:`fruits.images.decode.decode`.

        Raises
        ------
        ImageError
            As there; and ``crashed`` where the process died of the picture, twice.
        ChildProcessError
            The process did not start, for want of memory, say.
        """
        for _ in range(DEATHS):
            try:
                whole, answer = self._ask(data, size)
            except (BrokenPipeError, EOFError):
                died = self._end()
                continue
            if whole:
                return np.frombuffer(answer, np.uint8).reshape(size, size, 3)
            raise ImageError(*json.loads(answer))
        words = f"was ended by {signal.Signals(-died).name}" if died < 0 else f"ended with exit code {died}"
        raise ImageError("crashed", f"the process that decoded it {words}, {DEATHS} times")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.kill()
            self._end()

    def _ask(self, data: bytes, size: int) -> tuple[bool, bytes]:
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "fruits.images.isolation"],
                env=os.environ | {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            assert self._process.stdout is not None
            if self._process.stdout.read(len(READY)) != READY:
                raise ChildProcessError(f"the process that decodes pictures did not start: exit code {self._end()}")
        source, sink = self._process.stdout, self._process.stdin
        assert source is not None
        assert sink is not None
        sink.write(ASKED.pack(len(data), size))
        sink.write(data)
        sink.flush()
        whole, length = ANSWERED.unpack(_exactly(source, ANSWERED.size))
        return whole, _exactly(source, length)

    def _end(self) -> int:
        """Wait for the end of the process, which is dead or dying, and return its exit code."""
        assert self._process is not None
        process, self._process = self._process, None
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            try:
                pipe.close()
            except BrokenPipeError:  # what was still to be written
                continue
        return process.wait()


def _exactly(source: IO[bytes], length: int) -> bytes:
    data = source.read(length)
    if len(data) != length:
        raise EOFError
    return data


def main() -> None:
    """Decode what comes on the standard input, until it is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the worker's to answer
    source, sink = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not get between the answers
    sink.write(READY)
    sink.flush()
    while header := source.read(ASKED.size):
        length, size = ASKED.unpack(header)
        data = _exactly(source, length)
        try:
            whole, answer = True, decode(data, size).tobytes()
        except ImageError as error:
            whole, answer = False, json.dumps([error.reason, error.detail]).encode()
        sink.write(ANSWERED.pack(whole, len(answer)))
        sink.write(answer)
        sink.flush()


if __name__ == "__main__":
    main()
