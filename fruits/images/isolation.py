"""Decoding in a child process, so that a crash or hang of the decoder does not stop the worker or the server.

Decoders are native code: a crash ends the process, and only a separate one identifies the image that caused it. Every
file is copied to another process, so a job uses this only for partitions whose worker died before; the server and the
columns of DataFrames use it for every image. The child is spawned, not forked: a fork of a process with many threads,
such as a worker, can deadlock. Pixels come back through shared memory: through the socket, they take 0.3 ms of CPU
time.
"""

from __future__ import annotations

import fcntl
import json
import math
import mmap
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import time

import numpy as np
from numpy.typing import NDArray

from fruits.images.decode import DEFAULT, NO_MEMORY, Decoding, ImageError, decode_crops
from fruits.machine.subprocesses import python_environment

REQUEST = struct.Struct("<QI?B")  # bytes of the file, which follows; size of the result, True for full decoding, crops
RESPONSE = struct.Struct("<?Q")  # True for pixels, False for reason and detail of an ImageError, which follow; bytes
PIXEL_BYTES = 2 * 1024 * 1024 * 3  # of the shared memory, most of which is never used: two crops of 1,024 x 1,024
READY = b"!"  # the first byte of a child; if it is missing, the start failed and no image is to blame
ATTEMPTS = 2  # per image: a process killed by something else is hardly killed at the same image again
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1"}  # decoding multiplies no matrices; the threads of numpy take time and memory
# Texts of Pillow for corrupt WebP and JPEG files, and for too little memory.
AMBIGUOUS = ("OSError: could not create decoder object", "OSError: broken data stream when reading image file")
START_SECONDS = 60  # for the start of a child on a busy machine


class IsolatedDecoder:
    """:func:`fruits.images.decode.decode_crops` in a child process; a context manager that stops the child.

    Parameters
    ----------
    cpu_seconds : int, default 60
        CPU time after which an image is a reject. No accepted image takes 10 s, see ``tests/hostile/test_images.py``.
    wall_seconds : float, optional
        Time after which the child is killed and the image is a reject. Default: unlimited.
    memory : int, optional
        Private memory of the child in bytes; an image that needs more is a reject. Default: unlimited.
    """

    def __init__(self, cpu_seconds: int = 60, *, wall_seconds: float | None = None, memory: int | None = None) -> None:
        self._cpu_seconds = cpu_seconds
        self._wall_seconds = wall_seconds
        self._memory = memory
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self._pixels: mmap.mmap | None = None
        self._ready = False

    def __call__(self, data: bytes, size: int = 224, decoding: Decoding = DEFAULT) -> NDArray[np.uint8]:
        """Return the same pixels as :func:`fruits.images.decode.decode_crops`.

        Raises
        ------
        ImageError
            The image cannot be used. The reason is ``crashed`` if it killed the child twice, and ``timeout`` if it took
            more than `cpu_seconds` twice, the second time in a new process, or more than `wall_seconds` once.
            All of them depend on the machine, so the image may be decoded elsewhere.
        ChildProcessError
            The child did not start, for example because memory is exhausted.
        """
        shape = (decoding.crops, size, size, 3)
        if math.prod(shape) > PIXEL_BYTES:
            raise ValueError(f"{shape} pixels; at most {PIXEL_BYTES:,} bytes are allowed")
        for _ in range(ATTEMPTS):
            try:
                decoded, response = self._request(data, size, decoding)
            except (ConnectionError, EOFError):
                exit_code = self._wait()
                continue
            except TimeoutError:
                self._kill()
                raise ImageError(
                    "timeout", f"more than {self._wall_seconds} s; not reproducible on another machine"
                ) from None
            if decoded:
                assert self._pixels is not None
                return np.ndarray(shape, np.uint8, self._pixels).copy()
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

    def __enter__(self) -> IsolatedDecoder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the child, if it runs."""
        if self._process is not None:
            self._kill()

    def start(self) -> None:
        """Start the child without waiting for it, so that the first image finds it ready."""
        if self._process is not None:
            return
        self._channel, other = socket.socketpair()
        shared = _shared_memory()
        self._pixels = mmap.mmap(shared, PIXEL_BYTES)
        arguments = [str(self._cpu_seconds), str(self._memory or 0), str(shared)]
        with other, open(shared, "rb"):
            self._process = subprocess.Popen(
                [sys.executable, "-m", "fruits.images.isolation", *arguments],
                env=python_environment() | ONE_THREAD,
                cwd="/",  # Python 3.10 imports from the current folder despite that environment
                pass_fds=[shared],
                stdin=other.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        self._ready = False

    def wait_until_ready(self) -> socket.socket:
        """Start the child if necessary, wait until it takes images, and return its channel.

        Raises
        ------
        ChildProcessError
            The child did not start.
        """
        self.start()
        channel = self._channel
        assert channel is not None
        if self._ready:
            return channel
        channel.settimeout(START_SECONDS)
        try:
            self._ready = channel.recv(len(READY)) == READY
        except TimeoutError:
            self._kill()
            raise ChildProcessError(f"the process that decodes images did not start within {START_SECONDS} s") from None
        if not self._ready:
            raise ChildProcessError(f"the process that decodes images did not start: exit code {self._wait()}")
        return channel

    def _request(self, data: bytes, size: int, decoding: Decoding) -> tuple[bool, bytearray]:
        channel = self.wait_until_ready()
        channel.settimeout(self._wall_seconds)
        head = REQUEST.pack(len(data), size, decoding.mode == "full", decoding.crops)
        sent = channel.sendmsg([head, data])  # all at once, so that the child wakes up once
        if sent < len(head) + len(data):
            channel.sendall(memoryview(data)[sent - len(head) :])
        decoded, length = RESPONSE.unpack(_receive(channel, RESPONSE.size))
        return decoded, _receive(channel, length)

    def _kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._wait()

    def _wait(self) -> int:
        """Wait for the child, which is exiting, and return its exit code."""
        assert self._process is not None
        assert self._channel is not None
        process, self._process, self._pixels = self._process, None, None
        self._channel.close()
        return process.wait()


def _shared_memory() -> int:
    """Return a descriptor of memory for pixels, which the child cannot make smaller: the parent would crash."""
    if not hasattr(os, "memfd_create"):  # a Python for glibc before 2.27, or not on Linux
        import tempfile  # with what it imports, 3 MB in every child

        with tempfile.TemporaryFile() as file:
            file.truncate(PIXEL_BYTES)
            return os.dup(file.fileno())
    shared = os.memfd_create("fruits-pixels", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(shared, PIXEL_BYTES)
    fcntl.fcntl(shared, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    return shared


def _receive(channel: socket.socket, length: int) -> bytearray:
    """Return exactly `length` bytes."""
    data = bytearray(length)
    rest = memoryview(data)
    while rest:
        received = channel.recv_into(rest)
        if not received:
            raise EOFError
        rest = rest[received:]
    return data


def _limit_cpu_time(seconds: int) -> None:
    """Let the kernel end this process with SIGXCPU, also within native code, when the next image takes too long."""
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    limit = math.ceil(time.process_time()) + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def main(cpu_seconds: int, memory: int, shared: int) -> None:
    """Decode images from the socket at stdin until it is closed, and send the results."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the worker handles Ctrl-C
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a server that drains still needs it; it exits with its parent
    if memory:
        resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    memory_of_pixels = mmap.mmap(shared, PIXEL_BYTES)
    os.close(shared)
    with socket.socket(fileno=os.dup(0)) as channel:
        channel.sendall(READY)
        while header := channel.recv(REQUEST.size, socket.MSG_WAITALL):
            length, size, is_full, crops = REQUEST.unpack(header)
            data = bytes(_receive(channel, length))
            _limit_cpu_time(cpu_seconds)
            try:
                decoding = Decoding("full" if is_full else "reduced", crops)
                pixels = decode_crops(data, size, decoding)
                np.ndarray(pixels.shape, np.uint8, memory_of_pixels)[:] = pixels
                decoded, response = True, b""
            except ImageError as error:
                detail = error.detail
                if memory and detail == NO_MEMORY:
                    detail = f"decoding needs more than {memory:,} bytes of memory, the limit. Reduce the image"
                elif memory and detail in AMBIGUOUS:
                    detail += f"; or decoding needs more than {memory:,} bytes of memory, the limit"
                decoded, response = False, json.dumps([error.reason, detail]).encode()
            channel.sendall(RESPONSE.pack(decoded, len(response)) + response)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
