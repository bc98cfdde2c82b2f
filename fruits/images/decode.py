"""Pictures as the network wants them: any of six formats in, square 8-bit RGB pixels out.

:func:`decode` gives the pixels, or an :class:`ImageError` with one of these reasons. In the rejects, the column
``reason`` holds it, and ``detail`` the words of Pillow or of the file system.

================ =====================================================================================
reason           what it means
================ =====================================================================================
``unreadable``   the file could not be read: gone, or no permission
``changed``      the file is no longer as long as when it was listed
``empty``        the file has 0 bytes
``not-an-image`` the content begins like none of JPEG, PNG, WebP, BMP, TIFF and GIF, whatever its name
``too-large``    the picture has more than 50 megapixels or a side of more than 1,000,000 pixels, by its header, or
                 its file more than 400 MB or too many pieces (see :mod:`fruits.images.limits`); it was not decoded
``truncated``    the file ends before the picture does
``undecodable``  the content is damaged, or of a variant that Pillow does not know
``crashed``      the decoder crashed; see :mod:`fruits.images.isolation`
================ =====================================================================================
"""

from __future__ import annotations

import re
import threading
import warnings
from collections.abc import Callable
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.ExifTags import Base
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import BITSPERSAMPLE, TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from fruits.images.limits import too_many

__all__ = ["EXTENSIONS", "REASONS", "ImageError", "decode", "is_image"]

EXTENSIONS = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".gif"}
)  # of the six formats, in lower case

REASONS = ("unreadable", "changed", "empty", "not-an-image", "too-large", "truncated", "undecodable", "crashed")

MAX_PIXELS = 50_000_000
MAX_SIDE = 1_000_000  # pixels: to resize takes 32 bytes for each
DIB_HEADER_SIZES = {12, 16, 40, 52, 56, 64, 108, 124}  # BITMAPCOREHEADER to BITMAPV5HEADER
ENDS_EARLY = re.compile("(?i)truncated|no more images|requires a buffer|incomplete|missing dimensions")
TRANSPOSE = {  # EXIF 2.32, table 6: where the stored row 0 and column 0 are, and what sets them right
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_quiet = threading.Lock()


class ImageError(Exception):
    """One picture cannot be used. It stays on the worker, where it becomes a row of the rejects.

    Attributes
    ----------
    reason : str
        One of `REASONS`.
    detail : str
        The words of Pillow or of the file system.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


def decode(data: bytes, size: int = 224) -> NDArray[np.uint8]:
    """Return the pixels of an encoded picture: uint8 of shape (size, size, 3), RGB, C-contiguous, perhaps read-only.

    The first frame is turned upright by its EXIF orientation, brought to 8-bit RGB, and resized with Pillow's bicubic
    filter, which squeezes what is not square.

    - Transparency of any kind is laid onto white.
    - 16-bit samples keep their high byte, as Pillow does with 16-bit RGB; nothing is clipped.
    - 32-bit integers are taken as 16-bit and floats as 0 to 1 where all of them lie in that range; else the range is
      stretched from the picture's own minimum (0) to its maximum (255), and NaN is 0.
    - CMYK, YCbCr and LAB are converted by Pillow; embedded colour profiles are not applied.

    Parameters
    ----------
    data : bytes
        The whole file, in JPEG, PNG, WebP, BMP, TIFF or GIF; the content counts, not the name.
    size : int, default 224
        Height and width of the result, in pixels.

    Raises
    ------
    ImageError
        Whatever `data` holds, this is the only exception.
    """
    try:
        return _decode(data, size)
    except Warning:
        # Where warnings are errors, Pillow's remarks on odd metadata must not decide which pictures are used. Changing
        # the filters is not safe between threads, hence the lock, and hence not for every picture.
        with _quiet, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _decode(data, size)


def is_image(head: bytes) -> bool:
    """Return whether a file that begins with `head` (32 bytes are enough) is in one of the six formats."""
    return _reader(head) is not None


def _decode(data: bytes, size: int) -> NDArray[np.uint8]:
    if not data:
        raise ImageError("empty", "the file has 0 bytes")
    reader = _reader(data[:32])
    if reader is None:
        raise ImageError("not-an-image", f"begins with {data[:8]!r}: not JPEG, PNG, WebP, BMP, TIFF or GIF")
    if words := too_many(data):
        raise ImageError("too-large", words)
    try:
        # The format's own class and not Image.open, whose size check warns before ours can look at the header.
        image: Image.Image = reader(BytesIO(data))
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise ImageError("too-large", f"{width} x {height} pixels, of {MAX_PIXELS:,} at most")
        if max(width, height) > MAX_SIDE:
            raise ImageError("too-large", f"{width} x {height} pixels, of {MAX_SIDE:,} on a side at most")
        image.load()
        if reader is WebPImageFile:
            image = image.copy()  # lets go of libwebp's two canvases: what follows would come on top of them
        return np.asarray(_rgb(_upright(image)).resize((size, size), Image.Resampling.BICUBIC))
    except (ImageError, Warning):
        raise
    except Image.DecompressionBombError as error:
        raise ImageError("too-large", str(error)) from error
    except Exception as error:  # hostile bytes make Pillow raise nearly everything
        reason = "truncated" if _ends_early(data, str(error)) else "undecodable"
        raise ImageError(reason, f"{type(error).__name__}: {error}") from error


def _reader(head: bytes) -> Callable[[BytesIO], ImageFile] | None:
    """Return Pillow's class for the format that the first bytes announce."""
    if head.startswith(b"\xff\xd8\xff"):
        return JpegImageFile
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return PngImageFile
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return WebPImageFile
    if head.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return TiffImageFile
    if head.startswith((b"GIF87a", b"GIF89a")):
        return GifImageFile
    if head.startswith(b"BM") and int.from_bytes(head[14:18], "little") in DIB_HEADER_SIZES:
        return BmpImageFile
    return None


def _ends_early(data: bytes, words: str) -> bool:
    """Return whether the file is shorter than its picture, by its own header (WebP) or by the words of Pillow."""
    if data.startswith(b"RIFF"):
        return len(data) < 8 + int.from_bytes(data[4:8], "little")
    return ENDS_EARLY.search(words) is not None


def _upright(image: Image.Image) -> Image.Image:
    """Return the picture turned as its EXIF orientation says, if it has one that can be read."""
    try:
        method = TRANSPOSE.get(image.getexif().get(Base.Orientation, 1))
    except Warning:
        raise
    except Exception:  # damaged metadata, sound pixels: viewers show these as they are stored
        return image
    return image if method is None else image.transpose(method)


def _rgb(image: Image.Image) -> Image.Image:
    """Return the picture in 8-bit RGB, its transparency laid onto white."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith(("I", "F")):
        return Image.fromarray(_grey(image)).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    rgba = image.convert("RGBA")
    white = Image.new("RGB", rgba.size, "white")
    white.paste(rgba, mask=rgba)
    return white


def _grey(image: Image.Image) -> NDArray[np.uint8]:
    """Return 8-bit grey from the wide modes: I;16 in any byte order, I, and F."""
    values = np.asarray(image)
    known = values[np.isfinite(values)]
    low, high = float(known.min()), float(known.max())
    if image.mode != "F" and low >= 0 and high < 1 << 16:
        # Pillow leaves the samples of a 12-bit TIFF as they are; all else that is this narrow has 16 bits.
        twelve = isinstance(image, TiffImageFile) and image.tag_v2.get(BITSPERSAMPLE) == (12,)
        grey = (values >> (4 if twelve else 8)).astype(np.uint8)
    else:
        if image.mode == "F" and low >= 0 and high <= 1:
            low, high = 0.0, 1.0
        grey = np.zeros(values.shape, np.uint8)
        if high > low:
            for row, line in zip(values, grey, strict=True):  # np.interp works in float64: a row at a time saves memory
                line[:] = np.rint(np.nan_to_num(np.interp(row, (low, high), (0, 255))))
    if "transparency" in image.info:
        grey[values == image.info["transparency"]] = 255
    return grey
