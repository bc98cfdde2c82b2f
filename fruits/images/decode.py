"""Decoding of images: any of six formats in, square 8-bit RGB pixels out.

The functions return pixels or raise an :class:`ImageError` with one of these reasons. The rejects table stores it in
the column ``reason``, and the message of Pillow or of the file system in ``detail``.

================ =====================================================================================
reason           meaning
================ =====================================================================================
``unreadable``   the file cannot be read: missing, or permission denied
``changed``      the file has another size or version than when it was listed
``empty``        the file has 0 bytes
``not-an-image`` the content has no signature of JPEG, PNG, WebP, BMP, TIFF or GIF
``too-large``    the header states more than 50 megapixels or a side of more than 1,000,000 pixels, the file has
                 more than 400 MB, or too many segments (see :mod:`fruits.images.containers`), and it is not decoded;
                 or decoding needs more memory than there is
``truncated``    the file ends before the image is complete
``undecodable``  the content is corrupt, or a variant that is not decoded correctly
``crashed``      the decoder crashed; see :mod:`fruits.images.isolation`
``timeout``      the decoder took more than 60 s of CPU time; not reproducible on another CPU
``non-finite``   the network returned NaN or infinity for it
================ =====================================================================================
"""

from __future__ import annotations

import re
import struct
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import Literal, TypeVar, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImagePalette
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import BITSPERSAMPLE, PHOTOMETRIC_INTERPRETATION, SAMPLEFORMAT
from PIL.WebPImagePlugin import WebPImageFile

from fruits.images.containers import Container, parse
from fruits.images.jpeg import load_reduced, load_without_end
from fruits.images.tiff import LimitError, TiffImage, UnsupportedError

Result = TypeVar("Result")
Box = tuple[float, float, float, float]  # left, top, right, bottom, in pixels
DecodeMode = Literal["reduced", "full"]

EXTENSIONS = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".gif")
HEAD_BYTES = 32  # enough for the signature of every format

REASONS = (
    "unreadable",
    "changed",
    "empty",
    "not-an-image",
    "too-large",
    "truncated",
    "undecodable",
    "crashed",
    "timeout",
    "non-finite",
)

MAX_PIXELS = 50_000_000
MAX_SIDE = 1_000_000  # pixels; resizing allocates 32 bytes for each
MARGIN = 2  # sides of a reduced JPEG, at least, in sides of the result; with 1, features change by up to 12 %
INSET = 0.15  # of the width and height: what the centre crop leaves out on each side
MAX_RUNS = 20_000_000  # bytes and pixels of a run-length encoded BMP; Pillow decodes 5 million in a second
BITFIELDS = 3  # compression of a BMP
DIB_HEADER_SIZES = {12, 16, 40, 52, 56, 64, 108, 124}  # BITMAPCOREHEADER to BITMAPV5HEADER
NO_MEMORY = "decoding needs more memory than this process may use. Reduce the image"
ENDS_EARLY = re.compile("(?i)truncated|no more images|requires a buffer|incomplete")
TRANSPOSE = {  # the correction for each orientation of EXIF 2.32, table 6
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# The last column and row of a reduced JPEG extend beyond the image by a fraction of a pixel.
SWAPPED = {5, 6, 7, 8}  # orientations that exchange width and height
EXCESS_LEFT = {2, 3, 6, 7}  # orientations that turn that fraction to the left
EXCESS_TOP = {3, 4, 7, 8}  # orientations that turn it to the top

_filters_lock = threading.Lock()


class ImageError(Exception):
    """An image cannot be used. The worker catches it and adds a row to the rejects.

    Attributes
    ----------
    reason : str
        One of `REASONS`.
    detail : str
        The message of Pillow or of the file system.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


@dataclass(frozen=True, slots=True)
class Decoding:
    """Settings of the decoder. They change the pixels, so that they are part of the identity of features.

    Attributes
    ----------
    mode : {"reduced", "full"}, default "reduced"
        ``reduced``: decode a JPEG at 1/2, 1/4 or 1/8 of its size, by scaling its DCT blocks, as far as both sides stay
        at least twice as long as those of the result. ``full``: decode at full size. Both give the same pixels for
        smaller images and for other formats.
    crops : {1, 2}, default 1
        1: the whole image. 2: also its centre crop, 70 % of the width and of the height.
    """

    mode: DecodeMode = "reduced"
    crops: int = 1


DEFAULT = Decoding()


def decode(data: bytes, size: int = 224) -> NDArray[np.uint8]:
    """Return the pixels of a whole image: :func:`decode_crops` with the default settings, shape (size, size, 3)."""
    pixels: NDArray[np.uint8] = decode_crops(data, size)[0]
    return pixels


def decode_crops(data: bytes, size: int = 224, decoding: Decoding = DEFAULT) -> NDArray[np.uint8]:
    """Return the pixels of an encoded image: uint8 of shape (crops, size, size, 3), RGB, C-contiguous.

    The first frame is rotated by its EXIF orientation, converted to 8-bit RGB, and resized to a square with Pillow's
    bicubic filter; the aspect ratio is not kept.

    - Transparency of any kind is composited onto white, as is the canvas of a GIF or WebP outside its first frame.
    - 16-bit samples keep their high byte, as in Pillow's 16-bit RGB; nothing is clipped.
    - 32-bit integers are read as 16-bit, and floats as 0 to 1, if all values are in that range. Otherwise the minimum
      of the image maps to 0 and its maximum to 255; NaN maps to 0.
    - CMYK, YCbCr and LAB are converted by Pillow. Embedded colour profiles and all other metadata are ignored.
    - Ambiguous files are read as libvips and browsers read them: an extra sample of a TIFF without a meaning is alpha;
      alpha of a BMP that is 0 everywhere is unused; the orientation is that of the first EXIF, and never of XMP.
    - A JPEG needs no end marker if all its scans are complete.

    Parameters
    ----------
    data : bytes
        The content of a JPEG, PNG, WebP, BMP, TIFF or GIF file.
    size : int, default 224
        Height and width of the result, in pixels.
    decoding : Decoding, optional
        Default: reduced JPEGs, the whole image only.

    Raises
    ------
    ImageError
        The image cannot be used. No other exception is raised, for any `data`.
    """
    smallest = MARGIN * size if decoding.mode == "reduced" else None
    return _without_warnings(data, smallest, lambda image, box: _crops(image, box, size, decoding.crops))


def decode_image(data: bytes, smallest: int) -> Image.Image:
    """Return an encoded image as 8-bit RGB, upright, in its aspect ratio; see :func:`decode_crops`.

    A large JPEG is reduced, as far as both sides have at least `smallest` pixels.

    Raises
    ------
    ImageError
        As in :func:`decode_crops`.
    """
    return _without_warnings(data, smallest, lambda image, box: image.crop(tuple(map(round, box))))  # type: ignore[arg-type]


def _without_warnings(data: bytes, smallest: int | None, finish: Callable[[Image.Image, Box], Result]) -> Result:
    """Return ``finish(image, box)`` for the upright RGB image and the part of it that the content takes."""
    try:
        return _decode(data, smallest, finish)
    except Warning:
        # The caller's filters turn warnings into errors; Pillow's warnings about metadata must not reject an image.
        # Filters are global to the process, hence the lock, and hence only this second attempt changes them.
        with _filters_lock, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _decode(data, smallest, finish)


def resize_crops(image: Image.Image, size: int, crops: int) -> NDArray[np.uint8]:
    """Return the pixels of an image in memory, converted and resized as in :func:`decode_crops`."""
    image = _rgb(image)
    return _crops(image, (0, 0, image.width, image.height), size, crops)


def is_image(head: bytes) -> bool:
    """Return True if `head`, the first 32 bytes of a file, has the signature of one of the six formats."""
    return _image_class(head) is not None


def _decode(data: bytes, smallest: int | None, finish: Callable[[Image.Image, Box], Result]) -> Result:
    if not data:
        raise ImageError("empty", "the file has 0 bytes")
    image_class = _image_class(data[:HEAD_BYTES])
    if image_class is None:
        raise ImageError("not-an-image", f"begins with {data[:8]!r}: not JPEG, PNG, WebP, BMP, TIFF or GIF")
    try:
        container = parse(data)
        image, extent = _load(image_class, container, smallest)
        orientation = image.orientation if isinstance(image, TiffImage) else container.orientation
        image, box = _upright(_rgb(image), extent, orientation)
        return finish(image, box)
    except (ImageError, Warning):
        raise
    except LimitError as error:
        raise ImageError("too-large", str(error)) from error
    except UnsupportedError as error:
        raise ImageError("undecodable", str(error)) from error
    except Image.DecompressionBombError as error:
        raise ImageError("too-large", str(error)) from error
    except Exception as error:  # corrupt files make Pillow raise exceptions of many types
        if isinstance(error, MemoryError) or "out of memory" in str(error):  # the other is an OSError of a decoder
            raise ImageError("too-large", NO_MEMORY) from error
        reason = "truncated" if _ends_early(data, str(error)) else "undecodable"
        raise ImageError(reason, f"{type(error).__name__}: {error}") from error


def _load(
    image_class: Callable[[BytesIO], ImageFile], container: Container, smallest: int | None
) -> tuple[Image.Image, tuple[float, float]]:
    """Return the pixels in Pillow's mode, and the width and height that the image takes of them.

    If `smallest` is given, a JPEG is reduced as far as both sides have that many pixels.
    """
    # Image.open would check the size first and warn, so the class of the format is called directly.
    image = image_class(container.open())
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ImageError("too-large", f"{width} x {height} pixels, of {MAX_PIXELS:,} at most")
    if max(width, height) > MAX_SIDE:
        raise ImageError("too-large", f"{width} x {height} pixels, of {MAX_SIDE:,} on a side at most")
    if smallest is not None and isinstance(image, JpegImageFile) and min(width, height) >= 2 * smallest:
        reduced = load_reduced(container, smallest)
        if reduced is not None:
            return reduced
    return _load_full(image, container), (width, height)


def _load_full(image: ImageFile, container: Container) -> Image.Image:
    if isinstance(image, PngImageFile):
        _correct_png(image, bits=_png_bits(container))
    if isinstance(image, BmpImageFile):
        _correct_bmp(image, container.data)
    covered = image.tile[0].extents if isinstance(image, GifImageFile) and image.tile else None
    try:
        image.load()
    except OSError as error:
        whole = load_without_end(container) if isinstance(image, JpegImageFile) and "truncated" in str(error) else None
        if whole is None:
            raise
        image = whole
    if covered is not None and covered != (0, 0, *image.size) and "transparency" not in image.info:
        # Pillow fills the rest of the canvas with the first colour of the palette; in browsers it is transparent.
        white = Image.new("RGB", image.size, "white")
        white.paste(image.crop(covered).convert("RGB"), covered[:2])
        return white
    if isinstance(image, WebPImageFile):
        return image.copy()  # frees the two canvases of libwebp before the resize allocates more
    if isinstance(image, BmpImageFile) and image.mode == "RGBA" and not image.getchannel("A").getbbox():
        return image.convert("RGB")  # an unused channel: browsers ignore alpha that is 0 everywhere
    return image


def _upright(image: Image.Image, extent: tuple[float, float], orientation: int) -> tuple[Image.Image, Box]:
    """Return an image in its EXIF orientation, and the box of its extent, which starts at the top left."""
    method = TRANSPOSE.get(orientation)
    if method is not None:
        image = image.transpose(method)
    width, height = extent[::-1] if orientation in SWAPPED else extent
    left = image.width - width if orientation in EXCESS_LEFT else 0
    top = image.height - height if orientation in EXCESS_TOP else 0
    return image, (left, top, left + width, top + height)


def _crops(image: Image.Image, box: Box, size: int, crops: int) -> NDArray[np.uint8]:
    """Return a box of an RGB image, and with two crops also the centre of the box, resized: (crops, size, size, 3)."""
    left, top, right, bottom = box
    across, down = INSET * (right - left), INSET * (bottom - top)
    boxes = [box, (left + across, top + down, right - across, bottom - down)]
    resized = (image.resize((size, size), Image.Resampling.BICUBIC, each) for each in boxes[:crops])
    return np.stack([np.asarray(each) for each in resized])


def _png_bits(container: Container) -> int:
    """Return the bits of a sample, from the header, which metadata may precede."""
    file = container.open()
    file.read(8)
    header = file.read(17)
    if header[4:8] != b"IHDR":
        raise UnsupportedError("PNG that does not begin with its header")
    return header[16]


def _correct_png(image: PngImageFile, bits: int) -> None:
    """Convert the transparent colour to 8 bits, as the pixels."""
    transparency = image.info.get("transparency")
    if transparency is None or image.mode not in ("L", "RGB"):
        return
    if bits > 8:
        raise UnsupportedError("PNG of 16-bit RGB with a transparent colour")
    top = (1 << bits) - 1  # higher bits are ignored, as in libpng
    image.info["transparency"] = (
        (transparency & top) * 255 // top if image.mode == "L" else tuple(value & top for value in transparency)
    )


def _correct_bmp(image: BmpImageFile, data: bytes) -> None:
    """Restore a grey palette, which Pillow drops also where the pixels are indexes."""
    size, bits = struct.unpack_from("<IxxxxxxH" if data[14] == 12 else "<I10xH", data, 14)
    if bits == 16 and size >= 56 and data[30] == BITFIELDS and any(data[66:70]):
        raise UnsupportedError("BMP of 16-bit pixels with alpha")
    if image.tile[0].codec_name == "bmp_rle" and max(len(data), image.width * image.height) > MAX_RUNS:
        raise LimitError(f"more than {MAX_RUNS:,} pixels or bytes of runs")
    if image.mode in ("1", "L") and (image.mode, bits) not in {("1", 1), ("L", 8)}:
        greys = (0, 255) if image.mode == "1" else range(256)
        image.palette = ImagePalette.raw("RGB", bytes(grey for grey in greys for _ in range(3)))
        image._mode = "P"
        tile = image.tile[0]
        _, *others = cast("tuple[object, ...]", tile.args)
        image.tile = [tile._replace(args=("P" if bits == 8 else f"P;{bits}", *others))]


def _image_class(head: bytes) -> Callable[[BytesIO], ImageFile] | None:
    """Return Pillow's class for the format of a file, by its signature."""
    if head.startswith(b"\xff\xd8\xff"):
        return JpegImageFile
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return PngImageFile
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return WebPImageFile
    if head.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return TiffImage
    if head.startswith((b"GIF87a", b"GIF89a")):
        return GifImageFile
    if head.startswith(b"BM") and int.from_bytes(head[14:18], "little") in DIB_HEADER_SIZES:
        return BmpImageFile
    return None


def _ends_early(data: bytes, message: str) -> bool:
    """Return True if the file is truncated, by its header (WebP) or by the message of Pillow."""
    if data.startswith(b"RIFF"):
        return len(data) < 8 + int.from_bytes(data[4:8], "little")
    return ENDS_EARLY.search(message) is not None


def _rgb(image: Image.Image) -> Image.Image:
    """Return the image in 8-bit RGB, composited onto white."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith(("I", "F")):
        return Image.fromarray(_grey(image)).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    if image.mode == "La":
        image = image.convert("LA")
    rgba = image if image.mode == "RGBA" else image.convert("RGBA")  # convert copies 200 MB
    white = Image.new("RGB", rgba.size, "white")
    white.paste(rgba, mask=rgba)
    return white


def _grey(image: Image.Image) -> NDArray[np.uint8]:
    """Return 8-bit grey from the modes I;16 (any byte order), I and F."""
    values = np.asarray(image)
    is_12_bit = False
    if isinstance(image, TiffImage):
        tags = image.tag_v2
        if image.mode == "I" and tags.get(SAMPLEFORMAT, (1,)) == (1,):
            values = values.view(np.uint32)
        if tags.get(PHOTOMETRIC_INTERPRETATION, 0) == 0:  # white is zero; of 16-bit modes, Pillow inverts none
            values = ~values
        # Pillow does not scale the samples of a 12-bit TIFF; every other format here has 16 bits.
        is_12_bit = tags.get(BITSPERSAMPLE) == (12,)
    if image.mode == "F":
        finite = np.isfinite(values)
        low = float(values.min(where=finite, initial=np.inf))
        high = float(values.max(where=finite, initial=-np.inf))
    else:
        low, high = float(values.min()), float(values.max())
    if image.mode != "F" and low >= 0 and high < 1 << 16:
        grey = (values >> (4 if is_12_bit else 8)).astype(np.uint8)
    else:
        if image.mode == "F" and low >= 0 and high <= 1:
            low, high = 0.0, 1.0
        grey = np.zeros(values.shape, np.uint8)
        if high > low:
            for row, line in zip(values, grey, strict=True):  # by row, because np.interp allocates float64
                line[:] = np.rint(np.nan_to_num(np.interp(row, (low, high), (0, 255))))
    if "transparency" in image.info:
        grey[values == image.info["transparency"]] = 255
    return grey
