"""Objects on white are pasted onto photographs, with the same pixels everywhere."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from fruits.errors import DatasetError
from fruits.images.pasting import MOST, SIDE, Backgrounds, load_backgrounds

RED = (200, 30, 30)


def disc(hole: bool = False) -> np.ndarray:
    """Return a red disc on white, with a white hole in it or not."""
    image = Image.new("RGB", (SIDE, SIDE), "white")
    draw = ImageDraw.Draw(image)
    draw.ellipse((60, 60, 260, 260), fill=RED)
    if hole:
        draw.ellipse((140, 140, 180, 180), fill="white")
    return np.asarray(image)


def blue(width: int = 500, height: int = SIDE) -> Backgrounds:
    return Backgrounds((np.full((height, width, 3), (20, 20, 220), np.uint8),))


@settings(max_examples=12)  # of 0.3 s
@given(st.text(min_size=1))
def test_the_object_replaces_the_background_and_keeps_its_highlights(path: str) -> None:
    pasted = np.asarray(blue().paste(disc(hole=True), path)).astype(int)
    assert pasted.shape == (SIDE, SIDE, 3)
    is_red, is_white = (np.abs(pasted - colour).max(axis=2) < 40 for colour in (RED, (255, 255, 255)))
    area = np.pi * 100**2
    assert 0.45**2 * 0.8 * area < is_red.sum() < 1.1 * area
    assert 0 < is_white.sum() < 0.2 * is_red.sum()  # the hole, and nothing of the white around the disc
    assert (np.abs(pasted - (20, 20, 220)).max(axis=2) < 40).sum() > 0.5 * SIDE**2


def test_a_path_always_gives_the_same_pixels_and_paths_differ() -> None:
    first, second, other = (np.asarray(blue().paste(disc(), path)) for path in ("a/1.jpg", "a/1.jpg", "a/2.jpg"))
    assert (first == second).all()
    assert (first != other).any()


@pytest.mark.parametrize("colour", [(128, 128, 128), (234, 255, 255)])
def test_an_image_without_a_white_border_is_not_changed(colour: tuple[int, int, int]) -> None:
    assert blue().paste(np.full((SIDE, SIDE, 3), colour, np.uint8), "a/1.jpg") is None


def save(folder, name: str, size: tuple[int, int], seed: int = 0) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    path.write_bytes(buffer.getvalue())


def test_photographs_are_reduced_and_corrupt_ones_are_left_out(tmp_path) -> None:
    save(tmp_path, "a/wide.png", (3000, 100))
    save(tmp_path, "a/high.png", (640, 960), 1)
    (tmp_path / "a/corrupt.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    loaded = load_backgrounds(str(tmp_path))
    assert sorted(photo.shape for photo in loaded.photos) == [(SIDE, 2 * SIDE, 3), (3 * SIDE // 2, SIDE, 3)]
    assert load_backgrounds(str(tmp_path)).digest == loaded.digest
    save(tmp_path, "a/wide.png", (3000, 100), 2)
    assert load_backgrounds(str(tmp_path)).digest != loaded.digest


def test_a_large_folder_gives_a_bounded_number(tmp_path) -> None:
    for number in range(MOST + 9):
        save(tmp_path, f"a/{number}.png", (4, 4), number)
    assert len(load_backgrounds(str(tmp_path)).photos) == MOST


def test_a_folder_without_photographs_is_refused(tmp_path) -> None:
    (tmp_path / "text.txt").write_text("none")
    with pytest.raises(DatasetError, match=r"`backgrounds` .* no usable image"):
        load_backgrounds(str(tmp_path))
