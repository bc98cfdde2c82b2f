"""Decoding in a child process, so that a crash or hang of the decoder does not stop the worker.

Decoders are native code: a crash ends the process, and only a separate one identifies the image that caused it. Every
image is copied between two processes, so this is used only for partitions whose worker died before. The child is
spawned, not forked: a fork of a process with many threads, such as a worker, can deadlock.
"""

from __future__ import annotations

import json
import math
import os
import resource
import signal
import struct
import subprocess
import sys
import time
from types import TracebackType
from typing import IO, TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fruits.images.decode import DEFAULT, Decoding, ImageError, decode_crops
from fruits.machine.subprocesses import python_environment

if TYPE_CHECKING:
    from typing import Self

__all__ = ["IsolatedDecoder"]

REQUEST = struct.Struct("<QI?B")  # bytes of the file, which follows; size of the result, True for full decoding, crops
RESPONSE = struct.Struct("<?Q")  # True for pixels, False for reason and detail of an ImageError; the number of bytes
READY = b"!"  # the first byte of a child; if it is missing, the start failed and no image is to blame
ATTEMPTS = 2  # per image: a process killed by something else is hardly killed at the same image again


class IsolatedDecoder:
    """:func:`fruits.images.decode.decode_crops` in a child process; a context manager that stops the child.

    Parameters
    ----------
    cpu_seconds : int, default 60
        CPU time after which an image is a reject. No accepted image takes 10 s, see ``tests/hostile/test_images.py``.
    """

    def __init__(self, cpu_seconds: int = 60) -> None:
        self._cpu_seconds = cpu_seconds
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(self, data: bytes, size: int = 224, decoding: Decoding = DEFAULT) -> NDArray[np.uint8]:
        """Return the same pixels as :func:`fruits.images.decode.decode_crops`.

        Raises
        ------
        ImageError
            The image cannot be used. The reason is ``crashed`` if it killed the child twice, and ``timeout`` if it took
            more than `cpu_seconds` twice, the second time in a new process. Both depend on the machine, so
            the image may be decoded elsewhere.
        ChildProcessError
            The child did not start, for example because memory is exhausted.
        """
        for _ in range(ATTEMPTS):
            try:
                decoded, response = self._request(data, size, decoding)
            except (BrokenPipeError, EOFError):
                exit_code = self._wait()
                continue
            if decoded:
                return np.frombuffer(response, np.uint8).reshape(decoding.crops, size, size, 3)
            raise ImageError(*json.loads(response))
        if exit_code == -signal.SIGXCPU:
            raise ImageError(
                "timeout",
                f"more than {self._cpu_seconds} s of CPU time, {ATTEMPTS} times; not reproducible on another CPU",
            )
        end = (
            f"was ended by {signal.Signals(-exit_code).name}" if exit_code < 0 else f"ended with exit code {exit_code}"
        )
        raise ImageError("crashed", f"the process that decoded it {end}, {ATTEMPTS} times")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.kill()
            self._wait()

    def _request(self, data: bytes, size: int, decoding: Decoding) -> tuple[bool, bytes]:
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "fruits.images.isolation", str(self._cpu_seconds)],
                env=python_environment(),
                cwd="/",  # Python 3.10 imports from the current folder despite that environment
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            assert self._process.stdout is not None
            if self._process.stdout.read(len(READY)) != READY:
                raise ChildProcessError(f"the process that decodes images did not start: exit code {self._wait()}")
        source, sink = self._process.stdout, self._process.stdin
        assert source is not None
        assert sink is not None
        sink.write(REQUEST.pack(len(data), size, decoding.mode == "full", decoding.crops))
        sink.write(data)
        sink.flush()
        decoded, length = RESPONSE.unpack(_read_exactly(source, RESPONSE.size))
        return decoded, _read_exactly(source, length)

    def _wait(self) -> int:
        """Wait for the child, which is exiting, and return its exit code."""
        assert self._process is not None
        process, self._process = self._process, None
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            try:
                pipe.close()
            except BrokenPipeError:  # unsent data in the buffer
                continue
        return process.wait()


def _read_exactly(source: IO[bytes], length: int) -> bytes:
    data = source.read(length)
    if len(data) != length:
        raise EOFError
    return data


def _limit_cpu_time(seconds: int) -> None:
    """Let the kernel end this process with SIGXCPU, also within native code, when the next image takes too long."""
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    limit = math.ceil(time.process_time()) + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def main(cpu_seconds: int) -> None:
    """Decode images from stdin until it is closed, and write the results to stdout."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the worker handles Ctrl-C
    source, sink = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # output of libraries must not mix with the responses
    sink.write(READY)
    sink.flush()
    while header := source.read(REQUEST.size):
        length, size, is_full, crops = REQUEST.unpack(header)
        data = _read_exactly(source, length)
        _limit_cpu_time(cpu_seconds)
        try:
            decoding = Decoding("full" if is_full else "reduced", crops)
            decoded, response = True, decode_crops(data, size, decoding).tobytes()
        except ImageError as error:
            decoded, response = False, json.dumps([error.reason, error.detail]).encode()
        sink.write(RESPONSE.pack(decoded, len(response)))
        sink.write(response)
        sink.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]))
