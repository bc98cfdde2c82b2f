"""Credentials in addresses: they reach the server, and appear in no output, log, message or command line."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import psutil
import pyarrow.parquet as pq
import pytest

import fruits
from backends.local import LocalExecutor
from fruits.errors import FruitsError, SettingsError
from fruits.images.sample import generate
from fruits.jobs.identity import describe
from fruits.network import weights
from fruits.network.backbones import BACKBONES
from fruits.plan.pages import ImageList
from fruits.progress.json_log import JsonLog
from fruits.storage.folder import Folder

PASSWORD = "pa55-w0rd"  # a token, which an address may contain, unlike a user with a password
EXPECTED = "Basic " + base64.b64encode(f"{PASSWORD}:".encode()).decode()


class _Protected(SimpleHTTPRequestHandler):
    """A web server that requires the token."""

    def do_GET(self) -> None:
        if self.headers["Authorization"] != EXPECTED:
            self.send_error(401)
        else:
            super().do_GET()

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        """Write nothing."""


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """Serve generated images, and return their address with the token."""
    generate(str(tmp_path / "web" / "images"), images=12, labels=2)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Protected, directory=str(tmp_path / "web"))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://{PASSWORD}@127.0.0.1:{server.server_address[1]}/images"
        server.shutdown()
    fsspec.get_filesystem_class("http").clear_instance_cache()


def files_with_secrets(folder: Path) -> list[str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    texts = {path: str(pq.read_table(path).to_pylist()) for path in files if path.suffix == ".parquet"}
    return [str(path) for path in files if PASSWORD in texts.get(path, "") or PASSWORD.encode() in path.read_bytes()]


@pytest.mark.parametrize(("backend", "options"), [("local", ["--debug", "--json"]), ("dask", ["--log-json"])])
def test_token_of_a_web_folder_is_neither_stored_nor_printed(
    backend: str, options: list[str], address: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "fruits", "run", address, "--out", "out", "--components", "2"]
    command += ["--backend", backend, "--workers", "2", "--max-reject-fraction", "1", *options]
    driver = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    seen: set[str] = set()
    while driver.poll() is None:
        for child in psutil.Process(driver.pid).children(recursive=True):
            try:
                arguments = child.cmdline()
            except psutil.Error:
                continue
            if arguments != driver.args:  # a process has its parent's command line until it calls exec
                seen.add(" ".join(arguments))
        try:
            driver.wait(0.05)
        except subprocess.TimeoutExpired:
            continue
    out, err = driver.communicate()
    assert PASSWORD not in out + err, out + err
    assert PASSWORD not in "".join(seen)
    assert files_with_secrets(tmp_path / "out") == []


def test_identity_of_a_job_contains_the_folder_and_no_token(address: str) -> None:
    def images(given: str) -> object:
        return describe("fit", fruits.Job(images=given, out="out"), ImageList(1, ""), {}, None)["images"]

    assert images(address) == address.replace(PASSWORD, "***")
    assert images(address) == images(address.replace(PASSWORD, "other"))
    assert images(address) != images(address + "2")
    assert PASSWORD not in repr(Folder.at(address))


@pytest.mark.parametrize("wrong", ["wr0ng-one", "user:wr0ng-one"])
def test_error_of_a_refused_password_does_not_contain_it(wrong: str, address: str, tmp_path: Path) -> None:
    wrong = address.replace(PASSWORD, wrong)
    with pytest.raises(FruitsError) as caught:
        fruits.run(fruits.Job(images=wrong, out=str(tmp_path / "out")), LocalExecutor())
    assert "wr0ng-one" not in str(caught.value)


def test_settings_in_the_events_of_a_job_contain_no_secret(address: str, tmp_path: Path) -> None:
    settings: list[object] = []

    class Listener(JsonLog):
        def event(self, name: str, text: str | None = None, **fields: object) -> None:
            settings.append(fields)

    with pytest.raises(FruitsError):
        fruits.run(
            fruits.Job(images=address + "-missing", out=str(tmp_path / "out")),
            LocalExecutor(),
            progress=Listener(),
        )
    assert settings
    assert PASSWORD not in repr(settings)
    assert "http://***@127.0.0.1" in repr(settings)


def test_address_of_weights_is_masked_for_the_subprocess_and_the_cache(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = weights.find_weights(BACKBONES["MobileNetV2"])
    origins: list[str] = []

    def convert(action: str, name: str, source: Path, target: Path, *, origin: str) -> None:
        origins.append(origin)
        weights.save_cached(target, weights.load_cached(real.path)[0], origin)

    monkeypatch.setenv("FRUITS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(weights, "build_in_subprocess", convert)
    (tmp_path / "web" / "images" / "w.h5").write_bytes(b"weights")
    found = weights.find_weights(BACKBONES["MobileNetV2"], f"{address}/w.h5")
    assert found.source.startswith("http://***@127.0.0.1:")
    assert origins == [found.source]
    assert files_with_secrets(tmp_path / "cache") == []


def test_job_with_credentials_in_an_address_is_not_sent_to_a_cluster() -> None:
    from backends.aws.job_arguments import command_line

    job = fruits.Job(images="s3://b/images", out="s3://b/out", weights="s3://AKID:se/cret@b/w.h5")
    with pytest.raises(SettingsError, match=r"weights s3://\*\*\*@b/w.h5: contains credentials"):
        command_line("run", job)


def test_json_on_a_terminal_contains_no_control_characters(tmp_path: Path) -> None:
    name = "a\x9b2J \u202eb\x7f"
    command = [sys.executable, "-m", "fruits", "sample", name, "--images", "1", "--labels", "1", "--json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.replace("\n", "").isprintable()
    assert json.loads(done.stdout)["folder"] == str(tmp_path / name)
    shutil.rmtree(tmp_path / name)
    assert os.listdir(tmp_path) == []
