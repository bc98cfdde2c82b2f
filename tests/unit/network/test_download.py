from __future__ import annotations

import dataclasses
import functools
import hashlib
import http.server
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fruits.errors import WeightsError
from fruits.network import download
from fruits.network.backbones import BACKBONES
from fruits.network.weights import find_weights

RESNET = BACKBONES["ResNet50"]


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def host(empty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Serve a folder as Keras' host."""
    handler = functools.partial(QuietHandler, directory=str(tmp_path / "host"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        monkeypatch.setattr(download, "KERAS_FILES", f"http://127.0.0.1:{server.server_port}/")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield tmp_path / "host"
        server.shutdown()
        thread.join()


def test_official_file_is_downloaded(host: Path, converted: list[bytes]) -> None:
    (host / "resnet").mkdir(parents=True)
    (host / RESNET.weights_file).write_bytes(b"from the host")
    known = dataclasses.replace(RESNET, weights_md5=hashlib.md5(b"from the host").hexdigest())

    assert find_weights(known).source == download.KERAS_FILES + RESNET.weights_file
    assert converted == [b"from the host"]


def test_download_with_another_md5_is_rejected(host: Path, converted: list[bytes]) -> None:
    (host / "resnet").mkdir(parents=True)
    (host / RESNET.weights_file).write_bytes(b"half a fi")

    with pytest.raises(WeightsError, match=f"its MD5 is .*, expected {RESNET.weights_md5}"):
        find_weights(RESNET)
    assert converted == []


@pytest.mark.usefixtures("empty")
def test_silent_host_is_abandoned_after_the_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "CONNECT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(download, "KERAS_FILES", f"http://127.0.0.1:{silent.getsockname()[1]}/")
        with pytest.raises(WeightsError, match=r"no answer within 0\.2 s"):
            find_weights(RESNET)
