"""Decoding of images: any of six formats in, square 8-bit RGB pixels out.

:func:`decode` returns pixels or raises an :class:`ImageError` with one of these reasons. The rejects table stores it in
the column ``reason``, and the message of Pillow or of the file system in ``detail``.

================ =====================================================================================
reason           meaning
================ =====================================================================================
``unreadable``   the file cannot be read: missing, or permission denied
``changed``      the file has another size or version than when it was listed
``empty``        the file has 0 bytes
``not-an-image`` the content has no signature of JPEG, PNG, WebP, BMP, TIFF or GIF
``too-large``    the header states more than 50 megapixels or a side of more than 1,000,000 pixels, the file has
                 more than 400 MB, or too many segments (see :mod:`fruits.images.limits`); it is not decoded
``truncated``    the file ends before the image is complete
``undecodable``  the content is corrupt, or a variant that Pillow does not support
``crashed``      the decoder crashed; see :mod:`fruits.images.isolation`
``non-finite``   the network returned NaN or infinity for it
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

from fruits.images.limits import exceeded_limit

__all__ = ["EXTENSIONS", "REASONS", "ImageError", "decode", "is_image"]

EXTENSIONS = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".gif"}
)  # in lower case

REASONS = (
    "unreadable",
    "changed",
    "empty",
    "not-an-image",
    "too-large",
    "truncated",
    "undecodable",
    "crashed",
    "non-finite",
)

MAX_PIXELS = 50_000_000
MAX_SIDE = 1_000_000  # pixels; resizing allocates 32 bytes for each
DIB_HEADER_SIZES = {12, 16, 40, 52, 56, 64, 108, 124}  # BITMAPCOREHEADER to BITMAPV5HEADER
ENDS_EARLY = re.compile("(?i)truncated|no more images|requires a buffer|incomplete|missing dimensions")
TRANSPOSE = {  # the correction for each orientation of EXIF 2.32, table 6
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

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


def decode(data: bytes, size: int = 224) -> NDArray[np.uint8]:
    """Return the pixels of an encoded image: uint8 of shape (size, size, 3), RGB, C-contiguous, possibly read-only.

    The first frame is rotated by its EXIF orientation, converted to 8-bit RGB, and resized to a square with Pillow's
    bicubic filter; the aspect ratio is not kept.

    - Transparency of any kind is composited onto white.
    - 16-bit samples keep their high byte, as in Pillow's 16-bit RGB; nothing is clipped.
    - 32-bit integers are read as 16-bit, and floats as 0 to 1, if all values are in that range. Otherwise the minimum
      of the image maps to 0 and its maximum to 255; NaN maps to 0.
    - CMYK, YCbCr and LAB are converted by Pillow. Embedded colour profiles are ignored.

    Parameters
    ----------
    data : bytes
        The content of a JPEG, PNG, WebP, BMP, TIFF or GIF file.
    size : int, default 224
        Height and width of the result, in pixels.

    Raises
    ------
    ImageError
        The image cannot be used. No other exception is raised, for any `data`.
    """
    try:
        return _decode(data, size)
    except Warning:
        # The caller's filters turn warnings into errors; Pillow's warnings about metadata must not reject an image.
        # Filters are global to the process, hence the lock, and hence only this second attempt changes them.
        with _filters_lock, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _decode(data, size)


def is_image(head: bytes) -> bool:
    """Return True if `head`, the first 32 bytes of a file, has the signature of one of the six formats."""
    return _image_class(head) is not None


def _decode(data: bytes, size: int) -> NDArray[np.uint8]:
    if not data:
        raise ImageError("empty", "the file has 0 bytes")
    image_class = _image_class(data[:32])
    if image_class is None:
        raise ImageError("not-an-image", f"begins with {data[:8]!r}: not JPEG, PNG, WebP, BMP, TIFF or GIF")
    if limit := exceeded_limit(data):
        raise ImageError("too-large", limit)
    try:
        # Image.open would check the size first and warn, so the class of the format is called directly.
        image: Image.Image = image_class(BytesIO(data))
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise ImageError("too-large", f"{width} x {height} pixels, of {MAX_PIXELS:,} at most")
        if max(width, height) > MAX_SIDE:
            raise ImageError("too-large", f"{width} x {height} pixels, of {MAX_SIDE:,} on a side at most")
        image.load()
        if image_class is WebPImageFile:
            image = image.copy()  # frees the two canvases of libwebp before the resize allocates more
        return np.asarray(_rgb(_upright(image)).resize((size, size), Image.Resampling.BICUBIC))
    except (ImageError, Warning):
        raise
    except Image.DecompressionBombError as error:
        raise ImageError("too-large", str(error)) from error
    except Exception as error:  # corrupt files make Pillow raise exceptions of many types
        reason = "truncated" if _ends_early(data, str(error)) else "undecodable"
        raise ImageError(reason, f"{type(error).__name__}: {error}") from error


def _image_class(head: bytes) -> Callable[[BytesIO], ImageFile] | None:
    """Return Pillow's class for the format of a file, by its signature."""
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


def _ends_early(data: bytes, message: str) -> bool:
    """Return True if the file is truncated, by its header (WebP) or by the message of Pillow."""
    if data.startswith(b"RIFF"):
        return len(data) < 8 + int.from_bytes(data[4:8], "little")
    return ENDS_EARLY.search(message) is not None


def _upright(image: Image.Image) -> Image.Image:
    """Return the image rotated by its EXIF orientation, if it has a valid one."""
    try:
        method = TRANSPOSE.get(image.getexif().get(Base.Orientation, 1))
    except Warning:
        raise
    except Exception:  # corrupt metadata; viewers show the pixels as stored
        return image
    return image if method is None else image.transpose(method)


def _rgb(image: Image.Image) -> Image.Image:
    """Return the image in 8-bit RGB, composited onto white."""
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
    """Return 8-bit grey from the modes I;16 (any byte order), I and F."""
    values = np.asarray(image)
    finite = values[np.isfinite(values)]
    low, high = float(finite.min()), float(finite.max())
    if image.mode != "F" and low >= 0 and high < 1 << 16:
        # Pillow does not scale the samples of a 12-bit TIFF; every other format here has 16 bits.
        is_12_bit = isinstance(image, TiffImageFile) and image.tag_v2.get(BITSPERSAMPLE) == (12,)
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
