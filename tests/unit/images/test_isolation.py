"""Decoding in a child process."""

import os
import signal
from contextlib import suppress
from io import BytesIO

import numpy as np
import psutil
import pytest
from PIL import Image

from fruits.images.decode import Decoding, ImageError, decode, decode_crops
from fruits.images.isolation import IsolatedDecoder, _shared_memory


@pytest.fixture(scope="module")
def image():
    file = BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


@pytest.fixture(scope="module")
def decoder():
    with IsolatedDecoder() as decoder:
        yield decoder
    assert children() == []


def children():
    found = []
    for child in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):  # of another test, and has just ended
            if "fruits.images.isolation" in child.cmdline():
                found.append(child)
    return found


@pytest.mark.parametrize("size", [224, 299])
@pytest.mark.parametrize("decoding", [Decoding(), Decoding("full", crops=2)])
def test_pixels_equal_those_of_decode(decoder, image, size, decoding):
    np.testing.assert_array_equal(decoder(image, size, decoding), decode_crops(image, size, decoding))


def test_decoding_mode_reaches_the_child(decoder, image):
    reduced, full = (decoder(image, 10, Decoding(mode)) for mode in ("reduced", "full"))
    np.testing.assert_array_equal(full, decode_crops(image, 10, Decoding("full")))
    assert not np.array_equal(reduced, full)


@pytest.mark.parametrize("end", [0, 8, -40])
def test_reject_has_the_same_error_as_decode(decoder, image, end):
    with pytest.raises(ImageError) as raised:
        decoder(image[:end])
    with pytest.raises(ImageError) as expected:
        decode(image[:end])
    assert str(raised.value) == str(expected.value)


def test_child_killed_once_is_restarted(decoder, image):
    decoder(image)
    (child,) = children()
    os.kill(child.pid, signal.SIGKILL)
    np.testing.assert_array_equal(decoder(image)[0], decode(image))


def test_image_that_crashes_the_child_twice_is_rejected_with_the_signal(image, tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text(
        "import os\nfrom PIL.JpegImagePlugin import JpegImageFile\nJpegImageFile.load = lambda _: os.abort()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with IsolatedDecoder() as decoder:
        for _ in range(2):
            with pytest.raises(ImageError, match=r"^crashed: .*SIGABRT, 2 times"):
                decoder(image)
        with pytest.raises(ImageError, match=r"^empty"):
            decoder(b"")


@pytest.mark.parametrize("slow", ["while True: pass", "bytes(10**8).count(b'no')"], ids=["python", "native"])
def test_image_that_takes_too_much_cpu_time_twice_is_rejected(image, tmp_path, monkeypatch, slow):
    (tmp_path / "sitecustomize.py").write_text(
        "from PIL.JpegImagePlugin import JpegImageFile\n"
        f"def load(_):\n    while True:\n        {slow}\n"
        "JpegImageFile.load = load\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with IsolatedDecoder(cpu_seconds=1) as decoder:
        with pytest.raises(ImageError, match=r"^timeout: more than 1 s of CPU time, 2 times; not reproducible"):
            decoder(image)
        with pytest.raises(ImageError, match=r"^empty"):
            decoder(b"")


def test_cpu_time_is_limited_per_image(image):
    with IsolatedDecoder(cpu_seconds=1) as decoder:
        before = children()
        decoder(image)
        (child,) = set(children()) - set(before)
        while sum(child.cpu_times()[:2]) < 2:
            decoder(image, 1000)
        assert child in children()


def test_child_that_does_not_start_raises_an_error(image, monkeypatch):
    monkeypatch.setattr("sys.executable", "/bin/false")
    with IsolatedDecoder() as decoder, pytest.raises(ChildProcessError, match=r"did not start: exit code 1$"):
        decoder(image)


def test_image_that_takes_too_long_is_rejected_once(image, tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text(
        "import time\nfrom PIL.JpegImagePlugin import JpegImageFile\nJpegImageFile.load = lambda _: time.sleep(1000)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with IsolatedDecoder(wall_seconds=1.0) as decoder:
        with pytest.raises(ImageError, match=r"^timeout: more than 1\.0 s; not reproducible"):
            decoder(image)
        with pytest.raises(ImageError, match=r"^empty"):
            decoder(b"")


def test_image_that_needs_too_much_memory_is_rejected(image):
    file = BytesIO()
    Image.fromarray(np.zeros((6000, 8000, 3), np.uint8)).save(file, "PNG")  # 144 MB decoded
    with IsolatedDecoder(memory=150_000_000) as decoder:
        with pytest.raises(ImageError, match=r"^too-large: decoding needs more than 150,000,000 bytes of memory"):
            decoder(file.getvalue())
        np.testing.assert_array_equal(decoder(image)[0], decode(image))
    with IsolatedDecoder(memory=400_000_000) as decoder:
        assert decoder(file.getvalue()).max() == 0


def test_error_of_pillow_that_may_be_one_of_memory_names_the_limit():
    file = BytesIO()
    Image.new("RGB", (6000, 6000)).save(file, "JPEG", progressive=True, subsampling=0)  # 216 MB of coefficients
    with IsolatedDecoder(memory=256 << 20) as decoder, pytest.raises(ImageError, match=r"; or .* 268,435,456 bytes"):
        decoder(file.getvalue())


def test_child_is_ended_by_its_parent_alone(decoder, image):
    decoder(image)
    (child,) = children()
    for number in (signal.SIGTERM, signal.SIGINT):
        os.kill(child.pid, number)
    decoder(image)
    assert child in children()


def test_child_that_was_started_before_is_used(image):
    with IsolatedDecoder() as decoder:
        decoder.start()
        before = children()
        decoder(image)
        decoder.start()
        assert children() == before


def test_pixels_stay_when_the_next_image_is_decoded(decoder, image):
    first = decoder(image)
    before = first.copy()
    other = BytesIO()
    Image.new("RGB", (50, 50), "red").save(other, "PNG")
    assert not np.array_equal(decoder(other.getvalue()), before)
    np.testing.assert_array_equal(first, before)


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="no memory file descriptors")
def test_shared_memory_cannot_be_made_smaller():
    shared = _shared_memory()
    with open(shared, "r+b") as file, pytest.raises(PermissionError):
        file.truncate(0)
