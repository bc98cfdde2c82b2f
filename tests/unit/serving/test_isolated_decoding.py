"""Images that crash, hang or exhaust the decoder, while the server answers other requests."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import psutil
import pytest
from PIL import Image

from fruits.serving.limits import Limits
from tests.unit.serving.running import Running, run_server, wait_for

CRASH, SPIN, SLEEP, MEMORY = 11, 12, 13, 14  # widths of images, in pixels
DECODER = f"""
import os, time
from PIL.JpegImagePlugin import JpegImageFile
load = JpegImageFile.load
def hostile(image):
    if image.width == {CRASH}:
        os.abort()
    while image.width == {SPIN}:
        pass
    if image.width == {SLEEP}:
        time.sleep(1000)
    if image.width == {MEMORY}:
        bytearray(10**9)
    return load(image)
JpegImageFile.load = hostile
"""


@pytest.fixture(scope="module")
def hostile(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Return a server whose decoders do what the width of an image asks for."""
    site = tmp_path_factory.mktemp("site")
    (site / "sitecustomize.py").write_text(DECODER)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(site)
        with run_server(folder, limits=Limits(cpu_seconds=1, decode_seconds=4.0)) as running:
            yield running


def picture(width: int) -> bytes:
    file = BytesIO()
    Image.new("RGB", (width, 10)).save(file, "JPEG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("width", "status", "reason"),
    [(CRASH, 422, "crashed"), (SPIN, 422, "timeout"), (SLEEP, 422, "timeout"), (MEMORY, 413, "too-large")],
)
def test_a_hostile_image_is_answered_and_the_next_one_recognised(
    hostile: Running, banana: bytes, width: int, status: int, reason: str
) -> None:
    before = hostile.metric(f'fruits_images_total{{result="{reason}"}}')
    answer = hostile.recognise(picture(width))
    assert answer.status == status
    assert reason in answer.json()["error"]["message"]
    assert hostile.metric(f'fruits_images_total{{result="{reason}"}}') == before + 1
    assert hostile.recognise(banana).json()["label"] == "Banana"


def test_a_hanging_image_delays_no_other_request(hostile: Running) -> None:
    statuses: list[int] = []
    client = threading.Thread(target=lambda: statuses.append(hostile.recognise(picture(SLEEP)).status))
    client.start()
    wait_for(lambda: hostile.service.workers.pending == 1)
    assert hostile.request("GET", "/v2/health/ready").status == 200
    assert hostile.recognise(b"text").status == 415
    assert hostile.service.workers.pending == 1
    client.join()
    assert statuses == [422]


def test_a_decoder_that_is_killed_is_replaced(running: Running, banana: bytes) -> None:
    (decoder,) = running.service.workers.decoders
    before = decoder._process.pid
    os.kill(before, signal.SIGKILL)
    assert running.recognise(banana).status == 200
    assert decoder._process.pid != before


def test_a_decoder_that_cannot_be_started_is_503(folder: Path, banana: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    with run_server(folder) as running:
        (decoder,) = running.service.workers.decoders
        decoder.close()
        with monkeypatch.context() as patch:
            patch.setattr("sys.executable", "/bin/false")
            assert running.recognise(banana).status == 503
        assert running.recognise(banana).status == 200


def test_no_decoder_outlives_its_server(folder: Path) -> None:
    with run_server(folder, workers=3) as running:
        processes = [psutil.Process(decoder._process.pid) for decoder in running.service.workers.decoders]
        assert len(processes) == 3
    assert [process for process in processes if process.is_running()] == []
