"""Fixtures: a server for each test of this folder, a bucket on it, and proxies in front of it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from fruits.cli import main as cli
from fruits.storage.s3.file_system import S3FileSystem
from fruits.storage.s3.settings import conf
from tests.s3.proxy import Proxy, running
from tests.s3.server import Server, close_clients, served

AWS = re.compile("^(AWS|FSSPEC|FRUITS)_")


@pytest.fixture
def s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Start a server, which the environment makes the only one that this process and its children can reach."""
    for name in [name for name in os.environ if AWS.match(name)]:
        monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, os.devnull)
    (tmp_path / "s3").mkdir()
    with served(tmp_path / "s3") as server:
        for name, value in server.environ().items():
            monkeypatch.setenv(name, value)
        yield server
        close_clients()


@pytest.fixture
def fruits(capfd: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Return a function that runs a command in this process, asserts its exit code, and returns its JSON."""

    def run(*arguments: object, exit_code: int = 0) -> Any:
        with pytest.raises(SystemExit) as ended:
            cli.main([*map(str, arguments), "--json"])
        out, err = capfd.readouterr()
        assert ended.value.code == exit_code, out + err
        assert os.environ["AWS_SECRET_ACCESS_KEY"] not in out + err
        return json.loads(out)

    return run


@pytest.fixture
def bucket(s3: Server, request: pytest.FixtureRequest) -> str:
    """Return the address of a new bucket."""
    name = re.sub("[^a-z0-9]+", "-", request.node.name.lower()).strip("-")[:50]
    (s3.root / name).mkdir()
    return f"s3://{name}"


@pytest.fixture
def folder_of(s3: Server) -> Callable[[str], Path]:
    """Return a function that returns the local folder of an address."""
    return lambda address: s3.root / address.removeprefix("s3://")


@pytest.fixture
def proxy(s3: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Proxy]]:
    """Return a function that puts a proxy in front of the server: ``proxy(delay=0.03, faults=0.05)``."""
    with ExitStack() as stack:

        def start(**options: Any) -> Proxy:
            started = stack.enter_context(running(Proxy(s3.address, **options)))
            monkeypatch.setenv("AWS_ENDPOINT_URL_S3", started.endpoint)
            return started

        yield start


@pytest.fixture
def configure(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that sets fsspec's configuration of S3, as FSSPEC_S3 does when a process starts."""
    return lambda **options: monkeypatch.setitem(conf, "s3", options)


@pytest.fixture
def botocore_keys(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """Return the keys of requests through botocore, None for requests without one."""
    keys: list[str | None] = []
    call = S3FileSystem._call_s3

    def recorded(self: S3FileSystem, method: str, *given: Any, **parameters: Any) -> Any:
        keys.append(parameters.get("Key"))
        return call(self, method, *given, **parameters)

    monkeypatch.setattr(S3FileSystem, "_call_s3", recorded)
    return keys
