"""Packing: the images of any source as tar archives, which give the same model and rows as the source.

Archives are written in the order of the paths, each complete or not at all, and read back. A marker beside them
refuses readers until the last one is written. It names the pack: one that another pack replaces, also while it was
suspended, stops before its next file. The same images give the same archives.
"""

from __future__ import annotations

import re
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from tempfile import TemporaryFile
from typing import IO

import orjson

from fruits.errors import DamageError, DatasetError, OutputError, RejectsError, SettingsError, StorageError
from fruits.images.decode import EXTENSIONS, HEAD_BYTES, ImageError, is_image
from fruits.images.skipped import SkippedFiles
from fruits.images.sources.entries import Label, table_entries
from fruits.images.sources.source import Source
from fruits.images.sources.tables.addressed import Contents
from fruits.images.tar.samples import LABEL_EXTENSIONS
from fruits.images.tar.shards import INCOMPLETE
from fruits.images.tar.writer import ShardWriter, label_member, member_bytes
from fruits.parameters import check_fraction
from fruits.progress.reporter import Progress, Silent
from fruits.storage.folder import Folder, encode_json, is_temporary
from fruits.storage.prefetch import Range
from fruits.text import brief, name_text, printable, without_secrets

SHARD_SIZE = 256_000_000
SMALLEST = 10_000
READ = 2**23  # bytes of a request that reads an archive back
REPORT, UNPACKED = "pack.json", "unpacked.jsonl"
OWN = re.compile(rf"^(shard-\d{{6,}}\.tar|{re.escape(REPORT)}|{re.escape(UNPACKED)}|{re.escape(INCOMPLETE)})$")


@dataclass(frozen=True, slots=True)
class Shard:
    """An archive: its file name, the number of images, its size, and its SHA-256 in hexadecimal."""

    file: str
    images: int
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class PackReport:
    """The result of :func:`pack`, also stored beside the archives as ``pack.json``.

    Attributes
    ----------
    source, out : str
        The addresses.
    images, bytes : int
        The number of packed images, and the size of all archives.
    unpacked : dict of str to int
        The number of images that were not packed, by reason; ``unpacked.jsonl`` names each. The reasons are those of
        rejects, ``path`` (no member has this path when it is read) and ``label`` (two images share one label member).
    skipped : dict of str to int
        The number of files of the source that are no images, by kind; see :data:`fruits.images.skipped.KINDS`.
    shards : tuple of Shard
    """

    source: str
    out: str
    images: int
    bytes: int
    unpacked: dict[str, int]
    skipped: dict[str, int]
    shards: tuple[Shard, ...] = field(repr=False)


def pack(
    source: Source,
    out: Folder,
    *,
    shard_size: int = SHARD_SIZE,
    max_reject_fraction: float = 0.1,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> PackReport:
    """Write the images of a source as tar archives ``shard-000000.tar`` and so on, with their paths and labels.

    Memory does not grow with the number of images.

    Parameters
    ----------
    source : Source
    out : Folder
        A new or empty folder.
    shard_size : int, default 256,000,000
        The largest size of an archive, in bytes; a larger image gets one of its own.
    max_reject_fraction : float, default 0.1
        The largest fraction of images that may be left out, because they cannot be read.
    overwrite : bool, default False
        Replace the archives of an earlier pack.
    progress : Progress, optional

    Raises
    ------
    SettingsError
        `shard_size` is not allowed.
    OutputError
        The folder is not empty.
    DatasetError
        The source contains no image, or cannot be listed.
    RejectsError
        Too many images cannot be read.
    DamageError
        An archive differs when it is read back.
    StorageError
        The source or the folder failed.
    """
    check_fraction("max_reject_fraction", max_reject_fraction)
    if shard_size < SMALLEST:
        raise SettingsError(f"`shard_size` = {shard_size:,}: not allowed. Allowed: at least {SMALLEST:,}.")
    try:
        return _pack(source, out, shard_size, max_reject_fraction, overwrite, progress or Silent())
    except OSError as error:
        raise StorageError(
            f"packing {source.address} into {out.address} failed: {error}. Fix the cause, then start again with "
            "`overwrite`."
        ) from error


def _pack(
    source: Source, out: Folder, shard_size: int, max_reject_fraction: float, overwrite: bool, progress: Progress
) -> PackReport:
    _check_folder(out, overwrite)
    with TemporaryFile() as unpacked, progress.stage("pack", total=None) as stage:
        with _marked(source, out, overwrite) as check:
            packer = _Packer(source, out, shard_size, unpacked, check)
            images = packer.images()
            first = next(images, None)  # fails, before anything is removed, if the source is among the earlier archives
            if first is None and not packer.unpacked:
                raise DatasetError(f"{source.address}: contains no images. Give the address of images.")
        for name in filter(_is_own, out.names()):  # listed now: a pack that this one replaces wrote until the marker
            if name != INCOMPLETE:
                check()
                out.remove_files([name])  # one by one: archives of another pack that replaced this one may follow
        check()
        out.abort_uploads(lambda name: OWN.match(name) is not None)
        for _ in packer.write(first, images):
            stage.advance()
        rejected = sum(packer.unpacked.values())
        if rejected:
            unpacked.seek(0)
            with out.writing(UNPACKED, check=check) as file:
                while piece := unpacked.read(READ):
                    file.write(piece)
        if rejected > max_reject_fraction * (packer.packed + rejected):
            raise RejectsError(
                f"{rejected:,} of {packer.packed + rejected:,} images cannot be packed, more than "
                f"`max_reject_fraction` = {max_reject_fraction:g}. {out.address}/{UNPACKED} lists each. Raise it and "
                "start again with `overwrite`, or repair the images."
            )
    report = PackReport(
        source=without_secrets(source.address),
        out=without_secrets(out.address),
        images=packer.packed,
        bytes=sum(shard.bytes for shard in packer.shards),
        unpacked=dict(packer.unpacked),
        skipped=dict(packer.skipped.counts),
        shards=tuple(packer.shards),
    )
    out.write(REPORT, encode_json(asdict(report)), check=check)
    check()
    out.remove_files([INCOMPLETE])
    return report


def _is_own(name: str) -> bool:
    """Return whether a file name is one of those of a pack."""
    return OWN.match(name) is not None or is_temporary(name)


def _check_folder(out: Folder, overwrite: bool) -> None:
    """Raise if a folder contains anything but an earlier pack, or one that must not be replaced."""
    out.check()
    if out.is_file():
        raise OutputError(f"`out` = {out.address}: is a file. Give a folder.")
    names = out.names()
    foreign = [name for name in names if not _is_own(name)]
    if foreign or (names and not overwrite):
        remedy = "Give an empty folder" + ("." if foreign else ", or use `overwrite` to replace these archives.")
        state = "an unfinished pack" if INCOMPLETE in names else brief((foreign or names)[0])
        raise OutputError(f"`out` = {out.address}: not empty, it contains {printable(state)}. {remedy}")


@contextmanager
def _marked(source: Source, out: Folder, overwrite: bool) -> Iterator[Callable[[], None]]:
    """Write the marker, and remove it again if the context fails, unless an unfinished pack was marked before.

    Yield a function that raises unless the folder still has this marker.
    """
    marker = orjson.dumps({"source": without_secrets(source.address), "pack": uuid.uuid4().hex})
    created = out.create(INCOMPLETE, marker)
    if not created and not overwrite:
        raise OutputError(f"`out` = {out.address}: another fruits pack writes to it. Give another folder.")
    if not created:
        out.write(INCOMPLETE, marker)

    def is_own() -> bool:
        with suppress(FileNotFoundError):
            return out.read(INCOMPLETE) == marker
        return False

    def check() -> None:
        if not is_own():
            raise OutputError(
                f"`out` = {out.address}: another fruits pack with `overwrite` replaced this one, which stopped. Give "
                "each pack its own folder."
            )

    try:
        yield check
    except BaseException:
        if created and is_own():
            out.remove_files([INCOMPLETE])
        raise


@dataclass(slots=True)
class _Image:
    """An image to pack."""

    path: str
    label: Label
    data: bytes

    def size(self) -> int:
        """Return the bytes that it takes in an archive, with its label."""
        label = label_member(self.path, self.label)
        return member_bytes(self.path, len(self.data)) + (0 if label is None else member_bytes(label[0], len(label[1])))


@dataclass(slots=True)
class _Packer:
    """A pack in progress."""

    source: Source
    out: Folder
    shard_size: int
    names: IO[bytes]  # of the images that were not packed
    check: Callable[[], None]  # that the folder is still that of this pack
    packed: int = 0
    shards: list[Shard] = field(default_factory=list)
    unpacked: Counter[str] = field(default_factory=Counter)
    skipped: SkippedFiles = field(default_factory=SkippedFiles)

    def write(self, following: _Image | None, images: Iterator[_Image]) -> Iterator[None]:
        """Write all archives, of the first image and the others; yield after each image."""
        while following is not None:
            name, count = f"shard-{len(self.shards):06d}.tar", 0
            with self.out.writing(name, check=self.check) as file:
                writer = ShardWriter(file)
                while following is not None and (not count or writer.size_with(following.size()) <= self.shard_size):
                    if writer.add_image(following.path, following.data, following.label):
                        count += 1
                        yield
                    else:
                        problem = ImageError("label", "an image of the same name but for its extension has another")
                        self._leave_out(following.path, problem)
                    following = next(images, None)
                writer.close()
            self._verify(name, writer)
            self.shards.append(Shard(name, count, writer.size, writer.checksum))
            self.packed += count

    def images(self) -> Iterator[_Image]:
        """Yield the images that can be packed, in the order of their paths."""
        contents = Contents()
        for table in self.source.tables(self.skipped):
            entries = list(table_entries(table))
            for entry, content in zip(entries, self.source.read(entries), strict=True):
                try:
                    data = contents.bytes(entry.path, content)
                    _check_member(entry.path, data)
                except ImageError as error:
                    self._leave_out(entry.path, error)
                else:
                    yield _Image(entry.path, entry.label, data)
        contents.check()

    def _leave_out(self, path: str, error: ImageError) -> None:
        self.unpacked[error.reason] += 1
        values = {"path": name_text(path), "reason": error.reason, "detail": without_secrets(error.detail)}
        self.names.write(orjson.dumps(values, option=orjson.OPT_APPEND_NEWLINE))

    def _verify(self, name: str, writer: ShardWriter) -> None:
        """Read an archive back, and compare its bytes with what was written."""
        checksum = sha256()
        try:
            size = self.out.info(name).size
            pieces = (Range(name, start, min(READ, size - start)) for start in range(0, size, READ))
            for piece in self.out.fetch_ranges(pieces):
                if isinstance(piece, OSError):
                    raise piece
                checksum.update(piece)
            problem = f"its SHA-256 is {checksum.hexdigest()}, {writer.checksum} was written"
        except OSError as error:
            problem = str(error)
        if checksum.hexdigest() != writer.checksum:
            self.check()
            raise DamageError(
                f"{self.out.address}/{name} differs from what was written: {problem}. Check the storage, and start "
                "again with `overwrite`."
            )


def _check_member(path: str, data: bytes) -> None:
    """Raise the reason why an image, as a member, would not be read back under its path."""
    if path.startswith(("./", "/")) or path.endswith("/") or not path or "\0" in path or ".." in path.split("/"):
        raise ImageError("path", "not a path below a folder, as members of archives have")
    if path.lower().endswith(LABEL_EXTENSIONS):
        raise ImageError("path", f"the extensions {', '.join(LABEL_EXTENSIONS)} are those of labels")
    if not path.lower().endswith(EXTENSIONS) and not is_image(data[:HEAD_BYTES]):
        raise ImageError("path", "neither the extension nor the first bytes are those of an image")
