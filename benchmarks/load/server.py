"""A server process under test: its start, memory and CPU time, and the speed of the network alone beside it."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np
import psutil

from fruits.network.featurizer import Featurizer, compile_network

SAMPLE_SECONDS = 0.25
SERVING = "Serving on http://"


@dataclass(slots=True)
class ServerProcess:
    """``fruits serve`` in a process of its own; a context manager that stops it.

    Attributes
    ----------
    port : int
        Where it listens, on 127.0.0.1.
    start_seconds : float
        Time from its start until it listens.
    samples : list of (float, int)
        Time in seconds, and memory of the server and its children in bytes: resident, shared pages counted in parts.
    """

    recogniser: str
    log: Path
    port: int = 0
    start_seconds: float = 0.0
    samples: list[tuple[float, int]] = field(default_factory=list)
    _process: subprocess.Popen[str] | None = None
    _stop: threading.Event = field(default_factory=threading.Event)
    _sampling: threading.Thread | None = None

    def __enter__(self) -> ServerProcess:
        command = [sys.executable, "-P", "-m", "fruits", "serve", "--recogniser", self.recogniser, "--port", "0"]
        started = time.perf_counter()
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self._process.stderr is not None
        lines = []
        for line in self._process.stderr:
            lines.append(line)
            if SERVING in line:
                self.start_seconds = time.perf_counter() - started
                self.port = int(line.split(SERVING)[1].split(": ")[0].rpartition(":")[2])
                break
        else:
            raise RuntimeError(f"fruits serve did not start: {''.join(lines)}")
        threading.Thread(target=_copy, args=(self._process.stderr, self.log), daemon=True).start()
        self._sampling = threading.Thread(target=self._sample, daemon=True)
        self._sampling.start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._stop.set()
        self._process.terminate()
        self._process.wait(60)

    def cpu_seconds(self) -> float:
        """Return the CPU time of the server and its children until now."""
        assert self._process is not None
        root = psutil.Process(self._process.pid)
        return sum(sum(process.cpu_times()[:2]) for process in (root, *root.children(recursive=True)))

    def memory(self) -> int:
        """Return the memory of the server and its children now, in bytes."""
        assert self._process is not None
        total = 0
        with suppress(psutil.NoSuchProcess):
            root = psutil.Process(self._process.pid)
            for process in (root, *root.children(recursive=True)):
                with suppress(psutil.NoSuchProcess):
                    total += process.memory_full_info().pss
        return total

    def _sample(self) -> None:
        while not self._stop.wait(SAMPLE_SECONDS):
            self.samples.append((time.perf_counter(), self.memory()))


def _copy(stream: IO[str], path: Path) -> None:
    with path.open("w") as log:
        for line in stream:
            log.write(line)


def network_rate(threads: int, seconds: float) -> tuple[float, float]:
    """Return the images a second of the network alone on as many threads, and the CPU time of one in seconds."""
    featurizers = compile_network("MobileNetV2").load_shared(threads)
    pixels = np.random.default_rng(0).integers(0, 256, (1, 224, 224, 3), np.uint8)
    together = threading.Barrier(threads)

    def run(featurizer: Featurizer) -> int:
        featurizer(pixels)
        together.wait()
        started, count = time.perf_counter(), 0
        while time.perf_counter() - started < seconds:
            featurizer(pixels)
            count += 1
        return count

    with ThreadPoolExecutor(threads) as pool:
        cpu = time.process_time()
        count = sum(pool.map(run, featurizers))
        return count / seconds, (time.process_time() - cpu) / count
