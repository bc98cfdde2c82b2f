"""Addresses of tar archives: one file, numbered shards (``{000..999}.tar``) or a pattern (``*.tar``)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from functools import partial
from itertools import chain

from fruits.errors import DatasetError, SettingsError
from fruits.storage.addresses import split_chain
from fruits.storage.folder import Folder
from fruits.storage.prefetch import UNKNOWN_SIZE
from fruits.storage.stores import FileInfo
from fruits.text import brief, printable

COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst", ".tar.lz4")
SPECIAL = re.compile(r"[{*?]")
WILDCARD = re.compile(r"[*?]")
BRACES = re.compile(r"\{([^{}]*)\}")
NUMBERS = re.compile(r"(\d{1,9})\.\.(\d{1,9})")
MAX_SHARDS = 1_000_000
REQUESTS = 16
HOSTLESS = ("file", "memory", "zip")  # protocols without a host or bucket
INCOMPLETE = "pack-incomplete.json"  # beside shards, from the start of fruits pack to its end


def is_tar(address: str) -> bool:
    """Return whether an address is that of tar archives, also compressed ones, by its extension."""
    return split_chain(address)[0].lower().endswith((".tar", *COMPRESSED))


def shard_folder(address: str) -> tuple[str, str]:
    """Split an address into a folder, and a name or a pattern below it.

    Raises
    ------
    SettingsError
        The archives are compressed.
    DatasetError
        The name of the bucket or host is a pattern.
    """
    first, separator, others = split_chain(address)
    if first.lower().endswith(COMPRESSED):
        raise SettingsError(
            f"`images` = {address}: a compressed archive; its images cannot be read by offset. Decompress it, which "
            "makes images hardly larger, and give the .tar."
        )
    special = SPECIAL.search(first)
    start = first[: special.start()] if special else first
    protocol, scheme, _ = start.rpartition("://")
    folder, slash, _ = start[len(protocol) + len(scheme) :].rpartition("/")
    pattern = first[len(protocol) + len(scheme) + len(folder) + len(slash) :]
    if scheme and not folder and protocol not in HOSTLESS:
        raise DatasetError(
            f"{address}: the bucket or host cannot be a pattern. Give it, such as s3://bucket/{{000..999}}.tar."
        )
    return f"{protocol}{scheme}{folder or slash or ('' if scheme else '.')}{separator}{others}", pattern


def find_shards(folder: Folder, pattern: str) -> list[FileInfo]:
    """Return the archives that a pattern names, each with its size and version, in the order of the pattern.

    Braces are expanded as in a shell, ``{000..999}`` and ``{a,b}``; ``*`` and ``?`` match within a file name.

    Raises
    ------
    DatasetError
        A file is missing or named twice, no file matches, or an unfinished ``fruits pack`` writes them.
    """
    shown = f"{folder.address}/{printable(pattern)}"
    literal = not SPECIAL.search(pattern) or folder.exists(pattern)
    names = [pattern] if literal else list(_expanded(pattern, shown))
    with ThreadPoolExecutor(REQUESTS) as pool:
        found = list(chain.from_iterable(pool.map(partial(_find, folder, literal), names)))
    if not found:
        raise DatasetError(f"{shown}: no file matches. Give the archives, such as 'folder/*.tar'.")
    seen: set[str] = set()
    for shard in found:
        if shard.path in seen:
            raise DatasetError(f"{shown}: names {printable(shard.path)} twice. Give each archive once.")
        seen.add(shard.path)
    for place in sorted({name.rpartition("/")[0] for name in seen}):
        if folder.exists(f"{place}/{INCOMPLETE}" if place else INCOMPLETE):
            raise DatasetError(
                f"{shown}: fruits pack has not finished these archives: {INCOMPLETE} is beside them. Wait for it, or "
                "pack again with `overwrite`."
            )
    return found


def _find(folder: Folder, literal: bool, name: str) -> list[FileInfo]:
    """Return the archive of a name, or those that match one with ``*`` or ``?``."""
    shown = f"{folder.address}/{printable(name)}"
    place, slash, base = name.rpartition("/")
    if not literal and WILDCARD.search(place):
        raise DatasetError(
            f"{shown}: * and ? are allowed in file names only. Name the folders, such as {{train,test}}/*.tar."
        )
    try:
        if literal or not WILDCARD.search(base):
            return [folder.info(name)]
        wanted = base.replace("[", "[[]")  # fnmatch knows sets of characters too
        files = (folder / place if place else folder).files().values()
        found = [file._replace(path=place + slash + file.path) for file in files if fnmatchcase(file.path, wanted)]
        return [folder.info(file.path) if file.size == UNKNOWN_SIZE else file for file in found]
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise DatasetError(f"{shown}: no such file. Give archives that exist, such as '*.tar'.") from error
    except OSError as error:
        raise DatasetError(f"{shown}: {error}.") from error


def _expanded(pattern: str, shown: str) -> Iterator[str]:
    """Yield the names of a pattern with braces."""
    pieces = BRACES.split(pattern)  # texts and, between them, contents of braces
    choices = [[text] if index % 2 == 0 else _choices(text, shown) for index, text in enumerate(pieces)]
    count = 1
    for each in choices:
        count *= len(each)
    if count > MAX_SHARDS or any("{" in text or "}" in text for text in pieces[::2]):
        raise DatasetError(
            f"{brief(shown)}: not a pattern of at most {MAX_SHARDS:,} archives. Allowed: {{000..999}}.tar, "
            "{a,b}.tar, *.tar; no braces in braces."
        )
    names = [""]
    for each in choices:
        names = [name + text for name in names for text in each]
    yield from names


def _choices(text: str, shown: str) -> list[str]:
    numbers = NUMBERS.fullmatch(text)
    if numbers is None:
        if "," not in text:
            raise DatasetError(f"{brief(shown)}: {{{text}}} is not allowed. Allowed: {{000..999}} or {{a,b}}.")
        return text.split(",")
    first, last = int(numbers[1]), int(numbers[2])
    if abs(last - first) >= MAX_SHARDS:
        raise DatasetError(f"{brief(shown)}: {{{text}}} has more than {MAX_SHARDS:,} numbers.")
    padded = len(numbers[1]) if len(numbers[1]) == len(numbers[2]) or numbers[1].startswith("0") else 0
    step = 1 if first <= last else -1
    return [f"{number:0{padded}d}" for number in range(first, last + step, step)]
