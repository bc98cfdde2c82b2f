"""Limits: bodies that are too large, too slow or too many, and connections that send nothing."""

from __future__ import annotations

import dataclasses
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import pytest

from fruits.serving import connections
from fruits.serving.limits import Limits
from fruits.serving.workers import ALWAYS
from tests.unit.serving.running import Running, run_server, wait_for

SMALL = Limits(body_bytes=200_000, buffered_bytes=300_000, queue_per_worker=2, queue_seconds=60.0)
SHORT = dataclasses.replace(SMALL, idle_seconds=1.0, body_seconds=1.5)
HEAD = b"POST /v1/recognise HTTP/1.1\r\nHost: localhost\r\n"
LIVE = b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
CHUNK = b"2710\r\n" + bytes(10_000) + b"\r\n"  # 10,000 bytes in chunked encoding


@pytest.fixture(scope="module")
def small(folder: Path) -> Iterator[Running]:
    """Return a server with limits of sizes, and with times that no test reaches."""
    with run_server(folder, limits=SMALL) as running:
        yield running


@pytest.fixture(scope="module")
def short(folder: Path) -> Iterator[Running]:
    """Return a server with limits of sizes and short times."""
    with run_server(folder, limits=SHORT) as running:
        yield running


def connect(running: Running) -> socket.socket:
    return socket.create_connection(("127.0.0.1", running.port), timeout=30)


def read_status(connection: socket.socket) -> int:
    """Return the status of the answer; 0 if the connection is closed without one."""
    head = connection.recv(65536)
    return int(head.split()[1]) if head else 0


def read_error(connection: socket.socket) -> dict[str, Any]:
    """Return the error of an answer that ends the connection."""
    with closing(HTTPResponse(connection)) as answer:
        answer.begin()
        error: dict[str, Any] = json.loads(answer.read())["error"]
        assert (answer.status, answer.headers["content-type"]) == (error["status"], "application/json")
        assert connection.recv(1) == b""
    return error


def test_a_body_above_the_limit_is_413_before_it_is_sent(small: Running) -> None:
    with connect(small) as connection:
        connection.sendall(HEAD + b"Content-Length: 200001\r\n\r\n")
        assert read_status(connection) == 413


def test_a_body_above_the_limit_is_413_while_it_is_sent(small: Running) -> None:
    with connect(small) as connection:
        connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        connection.sendall(CHUNK * 21)
        assert read_status(connection) == 413  # the last chunk was not sent


def test_a_form_above_the_limit_is_413(small: Running) -> None:
    body = b'--e\r\nContent-Disposition: form-data; name="a"; filename="a"\r\n\r\n' + bytes(200_000) + b"\r\n--e--\r\n"
    assert small.recognise(body, content_type="multipart/form-data; boundary=e").status == 413


def test_a_client_that_expects_to_continue_is_answered_without_the_body(small: Running) -> None:
    with connect(small) as connection:
        connection.sendall(HEAD + b"Expect: 100-continue\r\nContent-Length: 300000\r\n\r\n")
        assert read_status(connection) == 413


def test_a_body_that_stops_is_408(short: Running) -> None:
    with connect(short) as connection:
        connection.sendall(HEAD + b"Content-Length: 1000\r\n\r\nhalf")
        assert read_status(connection) == 408
        assert connection.recv(65536) == b""  # closed


def test_a_body_that_trickles_is_408(short: Running) -> None:
    with connect(short) as connection:
        started = time.monotonic()
        connection.sendall(HEAD + b"Content-Length: 1000\r\n\r\n")
        stop = threading.Event()

        def trickle() -> None:
            while not stop.wait(0.2):
                try:
                    connection.sendall(b"x")
                except OSError:
                    return

        thread = threading.Thread(target=trickle)
        thread.start()
        status = read_status(connection)
        stop.set()
        thread.join()
    assert status == 408
    assert time.monotonic() - started >= SHORT.body_seconds


def test_a_connection_without_a_request_is_closed(short: Running) -> None:
    with ExitStack() as stack:
        connections = {sent: stack.enter_context(connect(short)) for sent in (b"", b"POST /v1/rec", HEAD, b"\r\n")}
        for sent, connection in connections.items():
            connection.sendall(sent)
        assert {sent: read_status(connection) for sent, connection in connections.items()} == dict.fromkeys(
            connections, 0
        )


def test_a_connection_is_closed_when_nothing_but_line_ends_follow_an_answer(short: Running) -> None:
    with connect(short) as connection:
        connection.sendall(LIVE)
        assert read_status(connection) == 200
        connection.sendall(b"\r\n")
        assert read_status(connection) == 0


def test_a_connection_that_sends_an_endless_body_after_its_answer_is_closed(short: Running) -> None:
    with connect(short) as connection:
        connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNK * 21)
        assert read_status(connection) == 413

        def is_closed() -> bool:
            try:
                connection.sendall(CHUNK)
            except (ConnectionResetError, BrokenPipeError):
                return True
            return False

        wait_for(is_closed)


@pytest.mark.parametrize(
    "head",
    [b"GET /" + b"x" * 70_000, b"GET / HTTP/1.1\r\nA: " + b"x" * 70_000, b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 12_000],
    ids=["path", "header", "headers"],
)
def test_large_headers_are_400(small: Running, head: bytes) -> None:
    with connect(small) as connection:
        connection.sendall(head)
        assert read_error(connection) == {"status": 400, "message": "The headers are too large. Allowed: 65536 bytes."}


@pytest.mark.parametrize("sent", [b"\0\0\0", b"GET / HTTP/1.1\r\nA\r\n\r\n", b"\x16\x03\x01\x02\0\x01\0"])
def test_errors_of_the_parser_are_json(small: Running, sent: bytes) -> None:
    with connect(small) as connection:
        connection.sendall(sent)
        assert read_error(connection) == {"status": 400, "message": "Invalid HTTP request received."}


def test_connections_above_the_limit_are_503_and_closed(small: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    wait_for(lambda: not small.server.server_state.connections)
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 1)
    with connect(small) as first, connect(small) as second:
        first.sendall(LIVE)
        assert read_status(first) == 200
        second.sendall(HEAD + b"\r\n")
        assert read_error(second) == {"status": 503, "message": "Too many connections. Retry after 1 s."}
    wait_for(lambda: not small.server.server_state.connections)
    assert small.request("GET", "/v2/health/live").status == 200


@pytest.mark.parametrize(
    "rest", [b"0\r\n" + b"a: b\r\n" * 12_000, b"1;" + b"x" * 70_000], ids=["trailers", "extension"]
)
def test_large_trailers_and_extensions_of_chunks_are_400(small: Running, rest: bytes) -> None:
    with connect(small) as connection:
        connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")
        wait_for(lambda: small.service.uploads.buffered == 1)
        connection.sendall(rest)
        assert read_status(connection) == 400
    wait_for(lambda: small.service.uploads.buffered == 0)


def test_many_requests_before_the_first_answer_are_400(
    small: Running, banana: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = threading.Event()
    recognise = small.service.workers._recognise
    monkeypatch.setattr(small.service.workers, "_recognise", lambda *args: go.wait(30) and recognise(*args))
    with connect(small) as connection:
        connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(banana) + banana + LIVE * 20)
        assert read_status(connection) == 400
        go.set()


def test_a_client_that_receives_no_answers_is_disconnected(folder: Path) -> None:
    request = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with run_server(folder, limits=Limits(answer_seconds=0.5)) as running, connect(running) as connection:
        wait_for(lambda: running.server.server_state.connections)
        sent = 0

        def is_disconnected() -> bool:
            nonlocal sent
            with suppress(OSError):
                if answered(running) == sent:  # until the buffers of the system are full
                    connection.sendall(request * 8)
                    sent += 8
            return not running.server.server_state.connections

        wait_for(is_disconnected)


def answered(running: Running) -> int:
    return running.server.server_state.total_requests


def test_uploads_above_the_memory_for_all_are_503(small: Running, banana: bytes) -> None:
    with connect(small) as first:
        first.sendall(HEAD + b"Content-Length: 190000\r\n\r\n" + bytes(180_000))
        wait_for(lambda: small.service.uploads.buffered >= 180_000)
        answer = small.recognise(bytes(150_000))
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    wait_for(lambda: small.service.uploads.buffered == 0)  # the first client left
    assert small.recognise(banana).status == 200


def test_images_that_find_the_queue_full_are_503(
    small: Running, banana: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = threading.Event()
    recognise = small.service.workers._recognise
    monkeypatch.setattr(small.service.workers, "_recognise", lambda *args: go.wait(30) and recognise(*args))
    statuses: list[int] = []
    clients = [
        threading.Thread(target=lambda: statuses.append(small.recognise(banana).status))
        for _ in range(small.service.workers.capacity)
    ]
    for client in clients:
        client.start()
    wait_for(lambda: small.service.workers.pending == small.service.workers.capacity)
    started = time.perf_counter()
    refused = small.recognise(banana)
    assert time.perf_counter() - started >= SMALL.refusal_seconds  # so that clients do not ask again at once
    assert (refused.status, refused.headers["retry-after"]) == (503, "1")
    assert small.request("GET", "/v2/health/live").status == 200
    assert small.metric("fruits_queue_images") == small.service.workers.capacity
    go.set()
    for client in clients:
        client.join()
    assert statuses == [200] * len(clients)
    assert small.recognise(banana).status == 200


def test_images_that_are_expected_to_wait_long_find_no_room(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    workers = running.service.workers
    rooms = {}
    for pending in (0, 3, 4, 11, 12):
        for seconds in (0.01, 1.0):
            monkeypatch.setattr(workers, "pending", pending)
            monkeypatch.setattr(workers, "_image_seconds", seconds)
            rooms[pending, seconds] = workers.has_room(1)
    assert rooms == {
        **{(pending, 0.01): pending < workers.capacity for pending in (0, 3, 4, 11, 12)},
        **{(pending, 1.0): pending < ALWAYS for pending in (0, 3, 4, 11, 12)},
    }


def test_an_image_that_waited_too_long_is_503(folder: Path, banana: bytes) -> None:
    with run_server(folder, limits=Limits(queue_seconds=0.0)) as running:
        answer = running.recognise(banana)
    assert answer.status == 503
    assert "waited too long" in answer.json()["error"]["message"]


def test_clients_that_leave_while_they_send_do_no_harm(small: Running, banana: bytes) -> None:
    for _ in range(10):
        with connect(small) as connection:
            connection.sendall(HEAD + b"Content-Length: 1000\r\n\r\nhalf")
    wait_for(lambda: small.service.uploads.buffered == 0)
    assert small.recognise(banana).status == 200


def test_corrupt_uploads_among_good_ones_are_answered_one_by_one(running: Running, banana: bytes) -> None:
    bad = {3: banana[: len(banana) // 2], 11: b"text", 15: b"\xff\xd8\xff" + bytes(100)}
    statuses: dict[int, int] = {}

    def send(number: int) -> None:
        connection = running.connect()
        for place in range(number, 20, 4):
            connection.request("POST", "/v1/recognise", bad.get(place, banana))
            response = connection.getresponse()
            response.read()
            statuses[place] = response.status
        connection.close()

    clients = [threading.Thread(target=send, args=(number,)) for number in range(4)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    assert statuses == {place: {3: 422, 11: 415, 15: 422}.get(place, 200) for place in range(20)}
