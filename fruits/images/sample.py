"""Generation of a labelled sample dataset of drawn fruit, in the layout of Fruits-360."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from fruits.errors import OutputError, SettingsError

SIZE = 100  # pixels, as in Fruits-360
OVERSAMPLING = 2
LIGHT = np.array([-0.48, -0.60, 0.64])  # unit vector from the upper left; HALFWAY is between it and the viewer
HALFWAY = np.array([-0.265, -0.331, 0.906])
STEM, LEAF, SEED = (104, 74, 44), ((70, 130, 50), (120, 170, 70)), (250, 215, 110)

Colour = tuple[int, int, int]
Points = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Kind:
    """Parameters of one fruit, in units of half the image: x to the right, y down, (0, 0) in the centre.

    `bumps` are added to the outline at its top and bottom; `taper` narrows the top, `bend` bends the body. `berries`
    are the centres of the bodies. Stems lead from `stems`, inside the bodies, to `tip`, the base of the leaves.
    `leaves` are the directions of the leaves in degrees, clockwise from the right.
    """

    label: str
    width: float
    height: float
    colours: tuple[Colour, Colour]
    taper: float = 0.0
    bend: float = 0.0
    bumps: tuple[float, float] = (0.0, 0.0)
    gloss: float = 0.45
    berries: tuple[tuple[float, float], ...] = ((0.0, 0.06),)
    stems: tuple[tuple[float, float], ...] = ()
    tip: tuple[float, float] = (0.0, -0.6)
    leaves: tuple[float, ...] = ()
    seeds: int = 0


BUNCH = tuple((0.3 * (place - row / 2), 0.55 - 0.27 * row) for row in (3, 2, 1, 0) for place in range(row + 1))
KINDS = (
    Kind("Apple", 0.7, 0.66, ((200, 24, 36), (232, 150, 60)), bumps=(-0.2, -0.07), berries=((0, 0.14),),
         stems=((0, -0.2),), tip=(0.08, -0.66), leaves=(-15,)),
    Kind("Banana", 0.2, 0.84, ((250, 210, 50), (214, 196, 70)), bend=0.42, bumps=(0.12, 0.04), gloss=0.15),
    Kind("Cherry", 0.38, 0.37, ((150, 8, 30), (200, 24, 40)), bumps=(-0.12, 0), berries=((-0.42, 0.44), (0.4, 0.36)),
         stems=((-0.42, 0.25), (0.4, 0.18)), tip=(0.08, -0.78), leaves=(10,), gloss=0.7),
    Kind("Grape", 0.2, 0.22, ((96, 40, 120), (140, 70, 150)), berries=BUNCH, stems=((0, -0.2),), tip=(0.06, -0.8),
         leaves=(20,)),
    Kind("Lemon", 0.6, 0.74, ((248, 222, 50), (226, 214, 90)), bumps=(0.22, 0.16), gloss=0.3),
    Kind("Orange", 0.74, 0.72, ((246, 140, 20), (252, 166, 50)), berries=((0, 0.12),), gloss=0.25, leaves=(-40,)),
    Kind("Pear", 0.56, 0.74, ((186, 196, 60), (222, 200, 90)), taper=0.38, bumps=(-0.04, -0.05), berries=((0, 0.14),),
         stems=((0, -0.4),), tip=(0.1, -0.86)),
    Kind("Strawberry", 0.62, 0.72, ((222, 24, 40), (238, 60, 50)), taper=-0.32, bumps=(-0.12, 0.08),
         leaves=(15, 55, 90, 125, 165), seeds=34),
)  # fmt: skip

MOST = 1_000_000  # files of each kind
BROKEN = ("truncated", "empty", "text")


def generate(folder: str | Path, *, images: int = 240, labels: int = len(KINDS), seed: int = 0, broken: int = 0) -> int:
    """Write labelled images to `folder`/<label>/ and return the number of files.

    The images are 100 x 100 JPEG on white, one label after the other. Every tenth has another format that occurs in
    practice: PNG with transparency, WebP, GIF, 16-bit grey or CMYK. Equal arguments give equal bytes, with the same
    versions of NumPy and Pillow.

    Parameters
    ----------
    folder : str or Path
        A local folder, new or empty; created if missing.
    images : int, default 240
        Number of images.
    labels : int, default 8
        Number of labels (fruits), in alphabetical order.
    seed : int, default 0
        Random seed.
    broken : int, default 0
        Number of additional corrupt files: truncated, empty and text, in turn.

    Raises
    ------
    OutputError
        `folder` is a file, is not empty, or cannot be written.
    SettingsError
        A number is out of its range.
    """
    if not 1 <= images <= MOST or not 0 <= broken <= MOST or seed < 0 or not 1 <= labels <= len(KINDS):
        raise SettingsError(
            f"sample: images {images}, labels {labels}, seed {seed}, broken {broken}. "
            f"Allowed: images 1 to {MOST:,}, labels 1 to {len(KINDS)}, seed from 0, broken 0 to {MOST:,}."
        )
    root = Path(folder)
    try:
        if root.exists() and (not root.is_dir() or any(root.iterdir())):
            raise OutputError(f"{folder}: not an empty folder. Give a new or empty folder.")
        for index in range(images + broken):
            kind = KINDS[index % labels]
            picture = _draw(kind, np.random.default_rng([seed, index]))
            name, data = _encode(picture, index) if index < images else _break(picture, index - images)
            place = root / kind.label
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{index:05d}{name}").write_bytes(data)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written ({error.strerror}). Give a writable folder.") from error
    return images + broken


def _encode(picture: Image.Image, index: int) -> tuple[str, bytes]:
    """Return the suffix of the file name and the content; nine of ten are JPEG."""
    flat = Image.new("RGB", picture.size, "white")
    flat.paste(picture, mask=picture)
    if index % 10 != 9:
        return ".jpg", _saved(flat, "JPEG", quality=92)
    grey = np.asarray(flat.convert("L")).astype(np.uint16) * 257
    choices = (
        lambda: (".png", _saved(picture, "PNG")),
        lambda: (".webp", _saved(flat, "WEBP", quality=90)),
        lambda: (".gif", _saved(flat, "GIF")),
        lambda: (".tif", _saved(Image.fromarray(grey), "TIFF")),
        lambda: ("_cmyk.jpg", _saved(flat.convert("CMYK"), "JPEG", quality=92)),
    )
    return choices[index // 10 % len(choices)]()


def _break(picture: Image.Image, index: int) -> tuple[str, bytes]:
    data = _saved(picture.convert("RGB"), "JPEG")
    choices = {"truncated": data[: len(data) // 2], "empty": b"", "text": b"This is not a picture of a fruit.\n"}
    name = BROKEN[index % len(BROKEN)]
    return f"_{name}.jpg", choices[name]


def _saved(picture: Image.Image, kind: str, **options: int) -> bytes:
    stream = BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def _draw(kind: Kind, rng: np.random.Generator) -> Image.Image:
    """Return one fruit, RGBA on a transparent background, with random size, position, rotation and tint."""
    side = SIZE * OVERSAMPLING
    scale = side / 2 * rng.uniform(0.8, 0.98)
    angle = rng.normal(0, 0.35)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    middle = side / 2 + rng.uniform(-0.04, 0.04, 2) * side
    tint = rng.normal(0, 9, 3)

    def at(points: Points | Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
        return [(float(x), float(y)) for x, y in np.asarray(points) @ turn * scale + middle]

    canvas = Image.new("RGBA", (side, side), (255, 255, 255, 0))
    pen = ImageDraw.Draw(canvas)
    for stem in kind.stems:
        pen.line(at([stem, kind.tip]), fill=(*STEM, 255), width=round(scale * 0.06))
    outline = _outline(kind) * rng.normal(1, 0.04, 2)
    radius = min(kind.width, kind.height) * scale
    for berry in kind.berries:
        _paint(canvas, at(outline + berry), kind.colours, radius, kind.gloss, tint, rng)
    for _ in range(kind.seeds):
        spot = np.array(kind.berries[0]) + 0.86 * np.sqrt(rng.uniform()) * outline[rng.integers(len(outline))]
        (x, y), seed = at([spot])[0], 0.022 * scale
        pen.ellipse((x - seed, y - 1.4 * seed, x + seed, y + 1.4 * seed), fill=(*SEED, 255))
    for direction in kind.leaves:
        _paint(canvas, at(_leaf(direction + rng.normal(0, 8)) + kind.tip), LEAF, 0.12 * scale, 0.1, tint, rng)
    return canvas.resize((SIZE, SIZE), Image.Resampling.LANCZOS)


def _outline(kind: Kind) -> Points:
    turn = np.linspace(0, 2 * np.pi, 160, endpoint=False)
    x, y = np.cos(turn), np.sin(turn)
    grown = 1 + np.where(y < 0, *kind.bumps) * np.exp(-((x / 0.3) ** 2))
    width = kind.width * (1 + kind.taper * y)
    return np.stack([width * x * grown + kind.bend * (y**2 - 0.5), kind.height * y * grown], axis=1)


def _leaf(degrees: float) -> Points:
    along = np.linspace(0, 1, 20)
    wide = 0.13 * np.sin(np.pi * along**0.8)
    edge = np.concatenate([np.stack([along, wide], 1), np.stack([along, -wide], 1)[::-1]]) * (0.5, 1)
    angle = np.radians(degrees)
    turned: Points = edge @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return turned


def _paint(
    canvas: Image.Image,
    outline: list[tuple[float, float]],
    colours: tuple[Colour, Colour],
    radius: float,
    gloss: float,
    tint: Points,
    rng: np.random.Generator,
) -> None:
    """Paint a shaded body: the blurred outline is its height map."""
    reach = round(radius)  # margin for the blur
    left, top = (int(edge) - reach for edge in np.min(outline, axis=0))
    width, height = (int(edge) + 2 * reach + 2 for edge in np.ptp(outline, axis=0))
    mask = Image.new("L", (width, height))
    ImageDraw.Draw(mask).polygon([(x - left, y - top) for x, y in outline], fill=255)
    relief = np.asarray(mask.filter(ImageFilter.GaussianBlur(0.45 * radius)), np.float32) * (1.6 * radius / 255)
    slope_y, slope_x = np.gradient(relief)
    normal = np.stack([-slope_x, -slope_y, np.ones_like(relief)], axis=-1)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    shine = gloss * np.clip(normal @ HALFWAY, 0, 1)[..., None] ** 60
    patches = Image.fromarray(rng.integers(0, 256, (4, 4), np.uint8)).resize(mask.size, Image.Resampling.BICUBIC)
    mix = np.asarray(patches)[..., None] / 255
    skin = np.array(colours[0]) * (1 - mix) + np.array(colours[1]) * mix + tint
    lit = skin * (0.5 + 0.62 * (normal @ LIGHT))[..., None]
    pixels = np.clip(lit + (255 - lit) * shine, 0, 255).astype(np.uint8)
    canvas.paste(Image.fromarray(pixels), (left, top), mask)
