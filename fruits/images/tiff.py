"""TIFF: the tags that the pixels need, and the variants that Pillow decodes correctly.

Pillow reads all tags and stores their data twice; a corrupt one ends the list. Here only the tags of the pixels are
read. Pillow decodes some variants to wrong pixels without an error, for example 16-bit planes or 8-bit colour maps.
They are corrected here or rejected; ``tests/unit/images/test_decode_matrix.py`` compares all of them with libvips.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Collection, Iterator
from io import BytesIO
from typing import NamedTuple, cast

import PIL
from PIL import _imaging
from PIL.TiffImagePlugin import (
    BITSPERSAMPLE,
    COLORMAP,
    COMPRESSION,
    EXTRASAMPLES,
    FILLORDER,
    IMAGELENGTH,
    IMAGEWIDTH,
    PHOTOMETRIC_INTERPRETATION,
    PLANAR_CONFIGURATION,
    REFERENCEBLACKWHITE,
    ROWSPERSTRIP,
    SAMPLEFORMAT,
    SAMPLESPERPIXEL,
    STRIPOFFSETS,
    TILELENGTH,
    TILEOFFSETS,
    TILEWIDTH,
    YCBCRSUBSAMPLING,
    ImageFileDirectory_v2,
    TiffImageFile,
)

PILLOW = int(PIL.__version__.partition(".")[0])
MAX_TAGS = 100_000
MAX_VALUES = 1_000_000  # of a tag: one strip per row of the tallest image that is allowed
MAX_METADATA = 200_000_000  # bytes of other tags, which libtiff copies
MAX_FILE_AND_STRIP = 700_000_000  # bytes in memory at once, beside the pixels of 200 MB
SIZES = {3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}  # bytes, by TIFF type; else 1
INTEGERS = {1: "B", 3: "H", 4: "L", 16: "Q"}  # by TIFF type
ORIENTATION, INKSET = 274, 332
TAGS = frozenset(
    {
        *(IMAGEWIDTH, IMAGELENGTH, BITSPERSAMPLE, COMPRESSION, PHOTOMETRIC_INTERPRETATION, FILLORDER, ORIENTATION),
        *(SAMPLESPERPIXEL, PLANAR_CONFIGURATION, COLORMAP, INKSET, EXTRASAMPLES, SAMPLEFORMAT),
        *(STRIPOFFSETS, ROWSPERSTRIP, TILEOFFSETS, TILEWIDTH, TILELENGTH, YCBCRSUBSAMPLING, REFERENCEBLACKWHITE),
    }
)
KEYS = {
    "compression": COMPRESSION,
    "photometric": PHOTOMETRIC_INTERPRETATION,
    "bits": BITSPERSAMPLE,
    "format": SAMPLEFORMAT,
    "extra samples": EXTRASAMPLES,
}
WHITE_IS_ZERO, RGB, PALETTE, CMYK, YCBCR = 0, 2, 3, 5, 6
SIGNED, FLOAT = 2, 3  # sample formats
UNSPECIFIED, UNASSOCIATED_ALPHA = 0, 2  # extra samples
UNCOMPRESSED = 1

Tags = dict[int, tuple[int, ...]]


class LimitError(Exception):
    """A file has more segments, tags or values than any encoder writes."""


class UnsupportedError(Exception):
    """An image is of a variant that Pillow decodes to wrong pixels."""


def read_directory(data: bytes, needed: Collection[int]) -> Tags:
    """Return the integer values of the `needed` tags of a TIFF or of EXIF; corrupt tags are left out.

    Raises
    ------
    LimitError
        The directory is longer than any encoder writes, or a needed tag has too many values.
    """
    tags: Tags = {}
    for tag, kind, values, offset, order in _entries(data):
        if tag not in needed or tag in tags or kind not in INTEGERS or not values:
            continue
        if values > MAX_VALUES:
            raise LimitError(f"a tag of more than {MAX_VALUES:,} values")
        numbers = struct.Struct(f"{order}{values}{INTEGERS[kind]}")
        if offset + numbers.size <= len(data):
            tags[tag] = numbers.unpack_from(data, offset)
    return tags


def _entries(data: bytes) -> Iterator[tuple[int, int, int, int, str]]:
    """Yield tag, type, number and offset of the values, and byte order, for each entry of the first directory."""
    layout = _Layout.from_header(data)
    if layout is None or layout.start + layout.number.size > len(data):
        return
    (number,) = layout.number.unpack_from(data, layout.start)
    if number > MAX_TAGS:
        raise LimitError(f"more than {MAX_TAGS:,} tags")
    entry = layout.entry
    first = layout.start + layout.number.size
    for place in range(first, min(first + number * entry.size, len(data) - entry.size + 1), entry.size):
        tag, kind, values, inline = entry.unpack_from(data, place)
        offset = place + entry.size - len(inline)
        if values * SIZES.get(kind, 1) > len(inline):
            (offset,) = layout.offset.unpack(inline)
        yield tag, kind, values, offset, layout.order


class _Layout(NamedTuple):
    """Byte order and sizes of a TIFF or BigTIFF, and the offset of its first directory."""

    order: str
    number: struct.Struct
    entry: struct.Struct  # tag, type, number of values; the last bytes are values or their offset
    offset: struct.Struct
    start: int

    @classmethod
    def from_header(cls, data: bytes) -> _Layout | None:
        order = {b"II": "<", b"MM": ">"}.get(data[:2])
        if order is None or len(data) < 16:
            return None
        big = data[2:4] in (b"+\0", b"\0+")
        offset = struct.Struct(order + ("Q" if big else "L"))
        (start,) = offset.unpack_from(data, 8 if big else 4)
        count, entry = ("Q", "HHQ8s") if big else ("H", "HHL4s")
        return cls(order, struct.Struct(order + count), struct.Struct(order + entry), offset, start)


class TiffImage(TiffImageFile):
    """The first image of a TIFF, without its metadata and not yet rotated.

    Attributes
    ----------
    orientation : int
        EXIF orientation, 1 to 8.
    """

    is_animated = False

    def _open(self) -> None:
        assert isinstance(self.fp, BytesIO)
        data = self.fp.getvalue()
        tags = read_directory(data, TAGS)
        self.orientation = tags.pop(ORIENTATION, (1,))[0]
        _check(tags)
        if tags.get(COMPRESSION, (1,)) != (UNCOMPRESSED,):
            _check_memory(data, tags)
        layout = _Layout.from_header(data)
        assert layout is not None
        self.tag_v2 = ImageFileDirectory_v2(prefix=data[:2])
        for tag, values in tags.items():
            self.tag_v2[tag] = values
        self.tag_v2._offset = layout.start  # libtiff starts there
        try:
            self._setup()
        except SyntaxError as error:
            kinds = ", ".join(f"{name} {tags[tag]}" for name, tag in KEYS.items() if tag in tags)
            raise UnsupportedError(f"TIFF of a variant that Pillow does not support: {kinds}") from error
        if self.use_load_libtiff:  # its samples are in the order of the CPU, as Pillow assumes for some modes only
            tile = self.tile[0]
            name, *others = cast("tuple[str, object, int]", tile.args)
            native = name.replace(";16BS", ";16S").replace(";32BS", ";32S").replace(";32BF", ";32F")
            self.tile = [tile._replace(args=(native, *others))]

    def load_end(self) -> None:
        """Skip Pillow's reading of EXIF and rotation."""


def _silence() -> None:
    """Turn off the lines about corrupt data that libtiff itself writes to stderr, in all threads of this process."""
    set_handler = getattr(ctypes.CDLL(_imaging.__file__), "TIFFSetErrorHandler", None)
    if set_handler is not None:  # a static libtiff may not export it
        set_handler(None)


_silence()


def _check_memory(data: bytes, tags: Tags) -> None:
    """Limit what libtiff allocates: copies of the metadata, and a decoded strip."""
    sizes = ((values * SIZES.get(kind, 1), at) for tag, kind, values, at, _ in _entries(data) if tag not in TAGS)
    if sum(size for size, at in sizes if at + size <= len(data)) > MAX_METADATA:
        raise LimitError(f"more than {MAX_METADATA:,} bytes of metadata")
    (width,), (height,) = tags[IMAGEWIDTH][:1], tags[IMAGELENGTH][:1]
    bits = max(tags.get(BITSPERSAMPLE, (1,))) * tags.get(SAMPLESPERPIXEL, (1,))[0]
    strip = width * min(tags.get(ROWSPERSTRIP, (height,))[0], height) * bits // 8
    if TILEOFFSETS not in tags and len(data) + strip > MAX_FILE_AND_STRIP:
        raise LimitError(f"more than {MAX_FILE_AND_STRIP:,} bytes for the file and a strip")


def _check(tags: Tags) -> None:
    """Correct tags for Pillow, or reject a variant that it decodes to wrong pixels."""
    if not tags:
        raise EOFError("truncated TIFF: its directory is missing")
    if not {IMAGEWIDTH, IMAGELENGTH} <= tags.keys():
        raise UnsupportedError("TIFF without its width or height")
    photometric = tags.get(PHOTOMETRIC_INTERPRETATION, (0,))[0]
    extra = tags.get(EXTRASAMPLES, ())
    samples = tags.get(SAMPLESPERPIXEL, (1,))[0]
    bits = set(tags.get(BITSPERSAMPLE, (1,))[:samples])
    form = tags.get(SAMPLEFORMAT, (1,))[0]
    compressed = tags.get(COMPRESSION, (1,))[0] != UNCOMPRESSED
    if PHOTOMETRIC_INTERPRETATION not in tags:  # libvips rejects it too
        raise UnsupportedError("TIFF without a photometric interpretation")
    if samples == 1:
        tags.pop(PLANAR_CONFIGURATION, None)
    if form == SIGNED and 8 in bits:
        raise UnsupportedError("TIFF of signed 8-bit samples")
    if form == FLOAT and photometric == WHITE_IS_ZERO:
        raise UnsupportedError("TIFF of floats with WhiteIsZero")
    if photometric == CMYK and tags.get(INKSET, (1,)) != (1,):
        raise UnsupportedError("TIFF of inks other than CMYK")
    if extra[:1] == (UNSPECIFIED,):
        if len(extra) > 1 or tags.get(PLANAR_CONFIGURATION, (1,)) == (2,):
            raise UnsupportedError("TIFF of several extra samples, or of planes, without a meaning")
        tags[EXTRASAMPLES] = (UNASSOCIATED_ALPHA,)  # as in libvips
    if photometric == PALETTE:
        _check_palette(tags, next(iter(bits)))
    if photometric == YCBCR and PILLOW < 13:
        raise UnsupportedError("TIFF of YCbCr, which Pillow before 13 decodes to other pixels")
    if photometric == YCBCR and not compressed:
        # Pillow ignores both tags unless libtiff decodes.
        if tags.get(YCBCRSUBSAMPLING, (2, 2)) != (1, 1) or REFERENCEBLACKWHITE in tags:
            raise UnsupportedError("uncompressed TIFF of subsampled or scaled YCbCr")
    if tags.get(PLANAR_CONFIGURATION, (1,)) == (2,):
        colours = {RGB: 3, CMYK: 4, YCBCR: 3}.get(photometric)
        plain = bits == {8} and tags.get(FILLORDER, (1,)) == (1,)
        if colours is None or samples != colours + len(extra) or not (compressed or plain):
            raise UnsupportedError("TIFF of separate planes, other than 8-bit or compressed RGB, CMYK and YCbCr")
    _check_strips(tags, samples)


def _check_palette(tags: Tags, bits: int) -> None:
    colours = tags.get(COLORMAP, ())
    if len(colours) != 3 << bits:
        raise UnsupportedError(f"TIFF with a colour map of {len(colours)} values for {bits} bits")
    if max(colours) < 256:  # 8-bit values, which old encoders wrote and libtiff detects
        tags[COLORMAP] = tuple(value << 8 for value in colours)


def _check_strips(tags: Tags, samples: int) -> None:
    """Require an offset for every strip or tile, because Pillow leaves the others black; remove further ones."""
    width, height = tags.get(IMAGEWIDTH, (0,))[0], tags.get(IMAGELENGTH, (0,))[0]
    if STRIPOFFSETS in tags:
        tag, expected = STRIPOFFSETS, -(-height // max(1, min(tags.get(ROWSPERSTRIP, (height,))[0], height)))
    else:
        tag = TILEOFFSETS
        across, down = (
            -(-side // max(1, tags.get(name, (1,))[0])) for side, name in ((width, TILEWIDTH), (height, TILELENGTH))
        )
        expected = across * down
    if tags.get(PLANAR_CONFIGURATION, (1,)) == (2,):
        expected *= samples
    if tag not in tags:
        return  # rejected by Pillow, or an old JPEG
    tags[tag] = tags[tag][:expected]
    if len(tags[tag]) < expected or not all(tags[tag]):
        raise UnsupportedError("TIFF without some of its strips or tiles")
