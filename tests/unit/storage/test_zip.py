"""ZIP archives: no entry is lost, whatever its name is, and names are those that the files had."""

from __future__ import annotations

import errno
import os
import warnings
import zipfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import pytest

from fruits.errors import DatasetError
from fruits.images.sources.entries import ImageEntry
from fruits.images.sources.kinds import open_source
from fruits.images.sources.listing import Listing
from fruits.images.sources.options import SourceOptions
from fruits.storage.folder import Folder

UNIX, DOS = 3, 0


def write(path: Path, files: Mapping[str, bytes], *, names: Mapping[bytes, bytes] = {}, system: int = UNIX) -> str:
    """Write an archive, replace names by others of the same length, and return its address."""
    stream = BytesIO()
    with zipfile.ZipFile(stream, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # duplicate names
        for name, data in files.items():
            entry = zipfile.ZipInfo(name.split("\0")[0])
            entry.create_system = system
            archive.writestr(entry, data)
    data = stream.getvalue()
    for name, replacement in names.items():
        assert len(name) == len(replacement)
        assert name in data
        data = data.replace(name, replacement)
    path.write_bytes(data)
    return f"zip://::{path}"


def contents(address: str) -> dict[str, object]:
    """Return the content of each entry by path, as the store reads it: no path is refused."""
    entries = list(Listing(open_source(address)))
    read = Folder.at(address).fetch(entry[:3] for entry in entries)
    return {entry.path: data for entry, data in zip(entries, read, strict=True)}


def test_entry_that_no_file_system_could_contain_is_listed_and_read(tmp_path: Path) -> None:
    names = ["/Apple/1.jpg", "Apple/1.jpg", "Apple//1.jpg", "./Apple/1.jpg", "../1.jpg", "Pear.jpg", "Pear.jpg/1.jpg"]
    files = {name: b"content of " + name.encode() for name in names}
    assert contents(write(tmp_path / "images.zip", files)) == dict(sorted(files.items()))


def test_last_of_several_entries_with_one_name_counts(tmp_path: Path) -> None:
    address = write(tmp_path / "images.zip", {"Apple/1.jpg": b"old", "Pear/1.jpg": b"", "Apple/1.jpg\0": b"new"})
    assert contents(address) == {"Apple/1.jpg": b"new", "Pear/1.jpg": b""}


@pytest.mark.parametrize(
    ("system", "stored", "name"),
    [
        (UNIX, "Äpfel".encode(), "Äpfel"),  # macOS' Finder
        (UNIX, b"\xc4pfel!", os.fsdecode(b"\xc4pfel!")),  # Latin-1
        (DOS, b"\x8epfel!", "Äpfel!"),  # Windows, in the United States
    ],
)
def test_name_without_the_flag_for_utf_8(tmp_path: Path, system: int, stored: bytes, name: str) -> None:
    address = write(tmp_path / "images.zip", {"Apfel!/1.jpg": b"1"}, names={b"Apfel!": stored}, system=system)
    assert contents(address) == {f"{name}/1.jpg": b"1"}
    assert [entry.label for entry in Listing(open_source(address))] == [name]


def test_folder_with_brackets_is_an_address(tmp_path: Path) -> None:
    address = write(tmp_path / "images.zip", {"Apple[1]/a*.jpg": b"1", "Apple1/b.jpg": b"2"})
    assert contents(address.replace("zip://", "zip://Apple[1]")) == {"a*.jpg": b"1"}


def test_unreadable_entry_is_an_error_of_its_own(tmp_path: Path) -> None:
    address = write(tmp_path / "images.zip", {"1.jpg": b"first", "2.jpg": b"second"}, names={b"first": b"other"})
    first, second = contents(address).values()
    assert isinstance(first, OSError)
    assert "CRC" in str(first)
    assert second == b"second"


@pytest.mark.parametrize("offset", [2**31, 2**32 - 1])
def test_entry_outside_of_the_archive_is_an_error_of_its_own(tmp_path: Path, offset: int) -> None:
    address = write(tmp_path / "images.zip", {"1.jpg": b"first", "2.jpg": b"second"})
    data = bytearray((tmp_path / "images.zip").read_bytes())
    place = data.index(b"PK\1\2") + 42
    data[place : place + 4] = offset.to_bytes(4, "little")
    (tmp_path / "images.zip").write_bytes(data)
    first, second = contents(address).values()
    assert isinstance(first, OSError)
    assert first.errno == errno.EIO
    assert second == b"second"


def test_entry_that_ends_early_is_an_error(tmp_path: Path) -> None:
    """The size in the directory leads beyond the end of the archive: Python raises an ``EOFError``."""
    address = write(tmp_path / "images.zip", {"1.jpg": b"first"})
    data = bytearray((tmp_path / "images.zip").read_bytes())
    place = data.index(b"PK\1\2") + 20
    data[place : place + 8] = (10_000).to_bytes(4, "little") * 2
    (tmp_path / "images.zip").write_bytes(data)
    (first,) = contents(address).values()
    assert isinstance(first, OSError)
    assert first.errno == errno.EIO


def test_missing_folder_and_file(tmp_path: Path) -> None:
    address = write(tmp_path / "images.zip", {"Apple/1.jpg": b"1"})
    with pytest.raises(DatasetError, match="no such folder"):
        list(Listing(open_source(address.replace("zip://", "zip://Pear"))))
    with pytest.raises(DatasetError, match="not a folder"):
        list(Listing(open_source(address.replace("zip://", "zip://Apple/1.jpg"))))
    with pytest.raises(FileNotFoundError):
        Folder.at(address).read("Apple/2.jpg")
    assert Folder.at(address).read("Apple/1.jpg", limit=1) == b"1"
    with pytest.raises(OSError, match="more than 0 bytes"):
        Folder.at(address).read("Apple/1.jpg", limit=0)
    assert list(Listing(open_source(write(tmp_path / "empty.zip", {})))) == []


def test_a_large_entry_that_a_manifest_names_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fruits.storage.generic.MAX_BYTES", 100)
    address = write(tmp_path / "a.zip", {"1.jpg": bytes(100), "2.jpg": bytes(101)})
    source = open_source(str(tmp_path / "m.csv"), SourceOptions(path_column="uri"))
    entries = [ImageEntry(address.replace("://", f"://{name}"), -1) for name in ("1.jpg", "2.jpg")]
    first, second = source.read(entries)
    assert first == bytes(100)
    assert isinstance(second, OSError)
    assert second.errno == errno.EFBIG
