"""``fruits serve`` as a process: its start, its end, and starts that fail."""

from __future__ import annotations

import dataclasses
import fcntl
import http.client
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from fruits.cli import main as cli
from fruits.recogniser.files import StoredRecogniser
from tests.processes import ended, listening
from tests.recognisers import write
from tests.unit.serving.running import WAIT_SECONDS, wait_for

SERVING = re.compile(r"Serving on http://127\.0\.0\.1:(\d+): recogniser [0-9a-f]{12}, 8 labels, (\d+) workers?")


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-P", "-m", "fruits", "serve", *map(str, arguments)]


@pytest.fixture
def fail(capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Return a function that runs a server that does not start, in this process, and returns its error in one line."""

    def run(*arguments: str | Path) -> str:
        with pytest.raises(SystemExit) as ended:
            cli.main(["serve", *map(str, arguments)])
        error = capfd.readouterr().err
        assert ended.value.code == 2, error
        assert "Traceback" not in error
        return " ".join(error.split())

    return run


@contextmanager
def start(*arguments: str | Path, env: dict[str, str] | None = None) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Start a server on a free port, and kill it at the end of the context."""
    process = subprocess.Popen(
        command(*arguments, "--port", "0"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | (env or {}),
    )  # fmt: skip
    try:
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            if match := SERVING.search(line):
                yield process, int(match[1])
                return
        pytest.fail("".join(lines))
    finally:
        process.kill()
        process.communicate()


def test_sigterm_answers_the_requests_in_progress_and_exits_with_0(folder: Path, banana: bytes) -> None:
    with start("--recogniser", folder, "--workers", "2") as (process, port):
        children = psutil.Process(process.pid).children()
        with socket.create_connection(("127.0.0.1", port), timeout=WAIT_SECONDS) as connection:
            head = b"POST /v1/recognise HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(banana)
            connection.sendall(head + banana[:100])  # half a request
            check = http.client.HTTPConnection("127.0.0.1", port)
            check.request("GET", "/v2/health/ready")
            assert check.getresponse().status == 200  # the server has read the first half by now
            process.send_signal(signal.SIGTERM)
            while True:  # until it accepts no connection any more
                try:
                    socket.create_connection(("127.0.0.1", port), timeout=1).close()
                except OSError:
                    break
            connection.sendall(banana[100:])
            answer = b"".join(iter(lambda: connection.recv(65536), b""))  # until the server closes the connection
        assert answer.startswith(b"HTTP/1.1 200")
        assert b'"label":"Banana"' in answer
        assert process.wait(WAIT_SECONDS) == 0
        assert process.stdout is not None
        assert re.search(r"Stopped after \d+ requests", process.stdout.read())
        assert len(children) == 2
        assert ended(children)


def test_ctrl_c_stops_with_0(folder: Path) -> None:
    with start("--recogniser", folder) as (process, _):
        process.send_signal(signal.SIGINT)
        assert process.wait(WAIT_SECONDS) == 0


def test_an_idle_server_keeps_neither_openvinos_converter_nor_the_constants_that_it_compiled(folder: Path) -> None:
    with start("--recogniser", folder, "--workers", "1") as (process, _):
        memory = Path(f"/proc/{process.pid}/smaps").read_text()
    assert "tensorflow_frontend" not in memory
    resident = re.search(r"/mobilenetv2/constants\.bin\n(?:.+\n)*?Rss: +(\d+) kB", memory)
    assert resident
    assert int(resident[1]) < 1_000


def test_decoders_end_with_a_server_that_is_killed(folder: Path) -> None:
    with start("--recogniser", folder, "--workers", "1") as (process, _):
        (child,) = psutil.Process(process.pid).children()
        process.kill()
        assert ended([child])


def test_ready_and_stopping_are_reported_to_systemd(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path has at most 107 bytes
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind("notify")
        channel.settimeout(WAIT_SECONDS)
        with start("--recogniser", folder, env={"NOTIFY_SOCKET": "notify"}) as (process, _):
            assert channel.recv(100) == b"READY=1"
            process.terminate()
            assert channel.recv(100) == b"STOPPING=1"
            assert process.wait(WAIT_SECONDS) == 0


@pytest.mark.parametrize("kind", ["disk", "pipe"])
def test_a_full_disk_or_pipe_for_the_log_stops_no_answer(folder: Path, banana: bytes, kind: str) -> None:
    unread, written = os.pipe()
    fcntl.fcntl(written, fcntl.F_SETPIPE_SZ, 4096)
    full = written if kind == "pipe" else os.open("/dev/full", os.O_WRONLY)
    process = subprocess.Popen(command("--recogniser", folder, "--port", "0"), stdout=full, stderr=full)
    try:

        def listens() -> bool:
            assert process.poll() is None
            return bool(listening(psutil.Process(process.pid)))

        wait_for(listens)
        ((_, port),) = listening(psutil.Process(process.pid))
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_SECONDS)
        for _ in range(300):  # more than the 8 kB that Python buffers
            connection.request("POST", "/v1/recognise", b"text")
            response = connection.getresponse()
            response.read()
            assert response.status == 415
        connection.request("POST", "/v1/recognise", banana)
        assert connection.getresponse().status == 200
        if kind == "pipe":
            process.terminate()
            os.read(unread, 4096)  # makes room for the last line, on standard output
            assert process.wait(WAIT_SECONDS) == 0
    finally:
        process.kill()
        process.wait()
        for descriptor in {unread, written, full}:
            os.close(descriptor)


LOG_STREAM = """
import os, sys
from fruits.serving.connections import LogHandler

os.geteuid() or os.seteuid(65534)
print(LogHandler().stream is sys.stderr)
"""


@pytest.mark.parametrize("shell", ['exec "$@" 2>&-', 'exec "$@"'], ids=["closed", "of another user"])
def test_the_log_needs_no_standard_error(shell: str) -> None:
    command = ["sh", "-c", shell, "sh", sys.executable, "-P", "-c", LOG_STREAM]
    unread, written = os.pipe()
    os.fchmod(written, 0)
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=written, text=True, check=True)
    os.close(unread)
    os.close(written)
    assert done.stdout == "True\n"


def test_a_port_in_use(fail: Callable[..., str], folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        error = fail("--recogniser", folder, "--port", port)
    assert f"--port {port} of 127.0.0.1: Address already in use. Stop the other server" in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--port", "65536"], "--port 65536: allowed are 0 (any free port) to 65535"),
        (["--host", "no such host"], "--host no such host: unknown"),
        (["--host", "0.0.0.0"], "--host 0.0.0.0: anyone who can reach it could use the server. Add a --token-file"),
        (["--host", "::"], "--host ::: anyone who can reach it"),
        (["--workers", "0"], "--workers 0: not allowed. Allowed: 1 to 2,048"),
        (["--workers", "99999999999"], "--workers 99999999999: not allowed. Allowed: 1 to 2,048"),
        (["--token-file", "no-such-file"], "--token-file no-such-file: cannot be read: No such file or directory"),
        (["--token-file", "/dev/null"], "--token-file /dev/null: not a token"),
        (["--token-file", ""], "--token-file: empty path"),
    ],
)
def test_options_that_are_invalid(fail: Callable[..., str], folder: Path, arguments: list[str], message: str) -> None:
    assert message in fail("--recogniser", folder, "--port", "0", *arguments)


@pytest.mark.parametrize(
    "content", [b"short", b"with spaces in the token", b"two-long-enough\nlines-of-text", b"\xff" * 20]
)
def test_token_files_that_are_invalid(fail: Callable[..., str], folder: Path, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "token").write_bytes(content)
    assert "--token-file" in fail("--recogniser", folder, "--token-file", tmp_path / "token")


def test_a_missing_recogniser(fail: Callable[..., str], tmp_path: Path) -> None:
    assert "no recogniser found" in fail("--recogniser", tmp_path / "none", "--port", "0")


def test_a_recogniser_of_another_network(fail: Callable[..., str], stored: StoredRecogniser, tmp_path: Path) -> None:
    write(dataclasses.replace(stored, network={**stored.network, "weights": "ab" * 32}), tmp_path)
    assert "belongs to weights abababababab, but this installation has" in fail("--recogniser", tmp_path, "--port", "0")


def test_with_a_token_any_host_is_allowed(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("0123456789abcdef\n")
    with start("--recogniser", folder, "--token-file", tmp_path / "token") as (_, port):
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.request("GET", "/v1/model", headers={"Authorization": "Bearer 0123456789abcdef"})
        assert connection.getresponse().status == 200
