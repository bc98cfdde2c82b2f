"""Images and their labels among the members of an archive: the layout of WebDataset.

The members of a sample follow each other and have the same key: the path up to the first dot of the file name.
``a/1.jpg`` and ``a/1.cls`` are an image and its label.

- An image is a member with the extension of an image, or without a known one and the first bytes of an image.
- A label is a member ``.cls`` (text or a number), ``.json`` (an object with the field ``label``: a text, a number, a
  list of texts, or null for no label) or ``.txt`` (one line). If a sample has several, the first of these that gives a
  label is used.
- A sample may have several images. A label with the name of an image up to its last dot, as ``1.left.cls`` for
  ``1.left.jpg``, belongs to this image; ``1.cls`` belongs to all others.
- An image without a label has that of its folder, as in a folder of images.
"""

from __future__ import annotations

import json
from codecs import BOM_UTF8
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from fruits.images.decode import EXTENSIONS, HEAD_BYTES, is_image
from fruits.images.skipped import LABEL, NOT_IMAGE, SPECIAL, skipped_by_name
from fruits.images.tar.members import Member, Window
from fruits.text import brief, bytes_name, name_bytes, printable

LABEL_EXTENSIONS = (".cls", ".json", ".txt")  # in the order of their precedence
MAX_LABEL = 1000  # bytes of a label; longer texts are captions
MAX_JSON = 2**20
MAX_SAMPLE = 65_536  # images that wait for the label of their sample: 20 MB
MAX_STRAY = 1000  # labels and images of which the rest of the sample is looked for elsewhere

Label = str | tuple[str, ...] | None
Skip = Callable[[str, str], None]


class Sample(NamedTuple):
    """An image of an archive: its path, the byte offset and the size of its content, and its label.

    The label is that of its folder if it is None, and there is no label if it is empty.
    """

    path: str
    position: int
    size: int
    label: Label = None


def key_of(path: str) -> str:
    """Return the path up to the first dot of the file name; a dot at its start does not count."""
    folder, slash, name = path.rpartition("/")
    return folder + slash + name[:1] + name[1:].partition(".")[0]


def split_extension(path: str) -> tuple[str, str]:
    """Return the path without the last extension, and the extension with its dot; that of ``...txt`` is ``.txt``."""
    folder, slash, name = path.rpartition("/")
    stem, dot, extension = name[1:].rpartition(".")
    return (folder + slash + name[:1] + stem, dot + extension) if dot else (path, "")


def stem_of(path: str) -> str:
    """Return the path without the last extension."""
    return split_extension(path)[0]


def stripped(text: bytes) -> bytes:
    """Return a label without the spaces around it and without the byte order mark that editors of Windows write."""
    return text.removeprefix(BOM_UTF8).strip()


def read_samples(window: Window, members: Iterable[Member], skip: Skip, *, hidden: bool = False) -> Iterator[Sample]:
    """Yield the images among the members of an archive, in their order, with their labels.

    Parameters
    ----------
    window : Window
        The archive, from which labels and the first bytes of images are read.
    members : iterable of Member
    skip : callable
        Receives the kind and the path of each member that is skipped; see :mod:`fruits.images.skipped`.
    hidden : bool, default False
        Include hidden members and folders of systems.

    Raises
    ------
    DatasetError
        A label cannot be read, is too long, or is not next to its image.
    """
    group = _Group(window, skip)
    for member in members:
        if not hidden and (named := skipped_by_name(member.path)):
            skip(*named)
            continue
        if not member.is_file:
            skip(SPECIAL, member.path)
            continue
        if (key := key_of(member.path)) != group.key:
            yield from group.close()
            group = group.following(key)
        elif len(group.images) == MAX_SAMPLE:
            yield from group.take(MAX_SAMPLE // 2)
        extension = split_extension(member.path)[1].lower()
        if extension in LABEL_EXTENSIONS:
            group.add_label(member, extension)
        elif member.path.lower().endswith(EXTENSIONS) or _has_signature(window, member):
            group.images.append(member)
        else:
            skip(NOT_IMAGE, member.path)
    yield from group.close()


def _has_signature(window: Window, member: Member) -> bool:
    return member.size > 0 and is_image(window.read(member.position, min(member.size, HEAD_BYTES)))


@dataclass(slots=True)
class _Group:
    """The sample that is being read, and some samples whose other members may be elsewhere."""

    window: Window
    skip: Skip
    key: str = ""
    images: list[Member] = field(default_factory=list)
    labels: dict[tuple[str, str], tuple[Member, bytes]] = field(default_factory=dict)  # by stem and extension
    taken: int = 0
    unlabelled: dict[str, Member] = field(default_factory=dict)  # images without a label, by key
    stray: dict[str, Member] = field(default_factory=dict)  # labels without an image, by key

    def following(self, key: str) -> _Group:
        """Return the next sample."""
        return _Group(self.window, self.skip, key, unlabelled=self.unlabelled, stray=self.stray)

    def add_label(self, member: Member, extension: str) -> None:
        """Read the content of a label; it is not interpreted before an image needs it."""
        stem = stem_of(member.path)
        if (known := self.labels.get((stem, extension))) is not None:
            problem = f"the label {_shown(member)} is also at byte {known[0].position:,}"
            self.window.fail(member.position, problem, "Write each label once.")
        if self.taken and stem == self.key:
            problem = f"the label {_shown(member)} follows more than {self.taken:,} images that it belongs to"
            self.window.fail(member.position, problem, "Write a label for each image.")
        content = self.window.read(member.position, min(member.size, MAX_JSON))
        self.labels[stem, extension] = (member, content)

    def take(self, count: int) -> Iterator[Sample]:
        """Yield and forget the first images, and forget their own labels."""
        taken, self.images = self.images[:count], self.images[count:]
        self.taken += count
        yield from map(self._sample, taken)
        done = set(map(stem_of, (image.path for image in taken))) - {self.key}
        self.labels = {place: label for place, label in self.labels.items() if place[0] not in done}

    def close(self) -> Iterator[Sample]:
        """Yield the images of the sample, and check that no label is apart from its image."""
        yield from map(self._sample, self.images)
        if self.images and not self.labels and not self.taken:
            self._check_apart(self.stray.get(self.key), self.images[0])
            _remember(self.unlabelled, self.key, self.images[0])
        if self.labels and not self.images and not self.taken:
            for member, _ in self.labels.values():
                self.skip(LABEL, member.path)
                self._check_apart(member, self.unlabelled.get(self.key))
            _remember(self.stray, self.key, member)

    def _sample(self, image: Member) -> Sample:
        for stem in (stem_of(image.path), self.key):
            for extension in LABEL_EXTENSIONS:
                known = self.labels.get((stem, extension))
                if known is not None and (label := self._parsed(*known, extension)) is not None:
                    return Sample(image.path, image.position, image.size, label)
        return Sample(image.path, image.position, image.size)

    def _parsed(self, member: Member, content: bytes, extension: str) -> Label:
        """Return the label in the content of a member; None if it gives none."""
        if extension == ".json":
            return self._field(member, content)
        text = bytes_name(stripped(content))
        if member.size > MAX_LABEL or "\n" in text or "\0" in text:
            problem = f"the label {_shown(member)} has {member.size:,} bytes, several lines, or a NUL"
            self.window.fail(member.position, problem, f"Allowed: one line of at most {MAX_LABEL:,} bytes; no caption.")
        return text or None

    def _field(self, member: Member, content: bytes) -> Label:
        remedy = 'Allowed: a JSON object; its field "label", if any, is a text, a number, a list of texts, or null.'
        if member.size > MAX_JSON:
            self.window.fail(member.position, f"{_shown(member)} has more than {MAX_JSON:,} bytes", remedy)
        try:
            value = json.loads(content)
        except (ValueError, RecursionError) as error:
            self.window.fail(member.position, f"{_shown(member)} is not JSON: {error}", remedy)
        if not isinstance(value, dict) or "label" not in value:
            return None
        label = value["label"]
        if isinstance(label, int) and not isinstance(label, bool):
            return str(label)
        texts = label if isinstance(label, list) else ["" if label is None else label]
        if all(isinstance(each, str) and _is_label(each) for each in texts):
            return tuple(texts) if isinstance(label, list) else texts[0]
        self.window.fail(member.position, f"the label {printable(brief(label))} of {_shown(member)}", remedy)

    def _check_apart(self, label: Member | None, image: Member | None) -> None:
        """Refuse an archive in which a label and its image do not follow each other."""
        if label is not None and image is not None:
            problem = f"the label {_shown(label)} is not next to its image {_shown(image)} at byte {image.position:,}"
            self.window.fail(label.position, problem, "Sort the members: tar --sort=name, or use fruits pack.")


def _is_label(text: str) -> bool:
    """Return whether a text of JSON, which can contain halves of surrogate pairs and NUL, is one of a file name."""
    try:
        return b"\0" not in name_bytes(text)
    except UnicodeEncodeError:
        return False


def _remember(members: dict[str, Member], key: str, member: Member) -> None:
    """Keep a member of a sample, up to a number: where labels are apart from their images, most are."""
    if len(members) < MAX_STRAY:
        members.setdefault(key, member)


def _shown(member: Member) -> str:
    return printable(brief(member.path))
