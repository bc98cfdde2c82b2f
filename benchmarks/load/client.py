"""Clients of the load test: each sends its images one after the other on one connection.

They share the CPUs with the server, so they are plain sockets: a library for HTTP takes five times as much CPU time.
"""

from __future__ import annotations

import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

TIMEOUT_SECONDS = 30.0
LENGTH = re.compile(rb"(?i)\r\ncontent-length: (\d+)\r\n")


@dataclass(frozen=True, slots=True)
class Load:
    """Result of some clients.

    Attributes
    ----------
    clients : int
        Number of connections.
    seconds : float
        Duration.
    statuses : dict of str to int
        Number of answers by status, and of requests without one by the name of the exception.
    accepted, all_answers : list of float
        Milliseconds of the requests that were answered with 200, and of all.
    client_cpu_seconds : float
        CPU time of the clients.
    """

    clients: int
    seconds: float
    statuses: dict[str, int]
    accepted: list[float]
    all_answers: list[float]
    client_cpu_seconds: float

    @property
    def rate(self) -> float:
        """Accepted requests a second."""
        return len(self.accepted) / self.seconds

    def percentile(self, percent: float) -> float:
        """Return a percentile of the accepted requests in milliseconds."""
        return float(np.percentile(self.accepted, percent)) if self.accepted else float("nan")


def run_clients(port: int, images: Sequence[bytes], clients: int, *, seconds: float) -> Load:
    """Send images from `clients` connections for `seconds`."""
    statuses: Counter[str] = Counter()
    accepted: list[float] = []
    all_answers: list[float] = []
    together = threading.Barrier(clients + 1)
    end = 0.0
    head = "POST /v1/recognise HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\nContent-Length: "
    requests = [f"{head}{len(image)}\r\n\r\n".encode() + image for image in images]

    def send(offset: int) -> None:
        connection = socket.create_connection(("127.0.0.1", port), TIMEOUT_SECONDS)
        together.wait()
        position = offset
        while time.perf_counter() < end:
            started = time.perf_counter()
            try:
                connection.sendall(requests[position % len(requests)])
                status = _read_status(connection)
            except OSError as error:
                connection.close()
                connection = socket.create_connection(("127.0.0.1", port), TIMEOUT_SECONDS)
                status = type(error).__name__
            milliseconds = 1e3 * (time.perf_counter() - started)
            statuses[status] += 1
            all_answers.append(milliseconds)
            if status == "200":
                accepted.append(milliseconds)
            position += clients
        connection.close()

    threads = [threading.Thread(target=send, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    started, cpu = time.perf_counter(), time.process_time()
    end = started + seconds
    together.wait()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - started
    return Load(clients, took, dict(statuses), accepted, all_answers, time.process_time() - cpu)


def _read_status(connection: socket.socket) -> str:
    """Read one answer, and return its status."""
    data = b""
    while (end := data.find(b"\r\n\r\n")) < 0:
        data += _receive(connection)
    length = LENGTH.search(data, 0, end + 2)
    if length is None:
        raise ConnectionError("an answer without a length")
    missing = end + 4 + int(length[1]) - len(data)
    while missing > 0:
        missing -= len(_receive(connection))
    return data[9:12].decode()


def _receive(connection: socket.socket) -> bytes:
    data = connection.recv(65536)
    if not data:
        raise ConnectionResetError("the server closed the connection")
    return data
