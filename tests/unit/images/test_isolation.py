"""Decoding in a process of its own."""

import os
import signal
from io import BytesIO

import numpy as np
import psutil
import pytest
from PIL import Image

from fruits.images.decode import ImageError, decode
from fruits.images.isolation import IsolatedDecoder


@pytest.fixture(scope="module")
def picture():
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
    return [child for child in psutil.Process().children() if "fruits.images.isolation" in child.cmdline()]


@pytest.mark.parametrize("size", [224, 299])
def test_the_pixels_are_the_same(decoder, picture, size):
    np.testing.assert_array_equal(decoder(picture, size), decode(picture, size))


@pytest.mark.parametrize("end", [0, 8, -40])
def test_a_picture_that_cannot_be_used_is_the_same_error(decoder, picture, end):
    with pytest.raises(ImageError) as told:
        decoder(picture[:end])
    with pytest.raises(ImageError) as expected:
        decode(picture[:end])
    assert str(told.value) == str(expected.value)


def test_a_process_that_is_killed_once_costs_nothing(decoder, picture):
    decoder(picture)
    (child,) = children()
    os.kill(child.pid, signal.SIGKILL)
    np.testing.assert_array_equal(decoder(picture), decode(picture))


def test_a_picture_at_which_it_dies_again_is_named_with_what_ended_it(picture, tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text(
        "import os\nfrom PIL.JpegImagePlugin import JpegImageFile\nJpegImageFile.load = lambda _: os.abort()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with IsolatedDecoder() as decoder:
        for _ in range(2):
            with pytest.raises(ImageError, match=r"^crashed: .*SIGABRT, 2 times"):
                decoder(picture)
        with pytest.raises(ImageError, match=r"^empty"):
            decoder(b"")


def test_a_process_that_does_not_start_has_not_died_of_a_picture(picture, monkeypatch):
    monkeypatch.setattr("sys.executable", "/bin/false")
    with IsolatedDecoder() as decoder, pytest.raises(ChildProcessError, match=r"did not start: exit code 1$"):
        decoder(picture)
