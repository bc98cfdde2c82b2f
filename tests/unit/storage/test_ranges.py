"""Ranges of files, sizes and versions, and files of any size, on every kind of store."""

from __future__ import annotations

import os
import uuid
import zipfile
from contextlib import ExitStack

import fsspec
import pytest

from fruits.storage.folder import Folder
from fruits.storage.prefetch import ChangedFileError, Range
from tests.unit.storage import servers

DATA = os.urandom(100_000)
READ_ONLY = ("zip", "http", "http with ranges", "webhdfs", "ftp")


@pytest.fixture(params=["local", "memory", *READ_ONLY])
def folder(request, tmp_path, monkeypatch):
    """Return a folder that contains ``sub/file`` and ``empty``."""
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (root / "sub" / "file").write_bytes(DATA)
    (root / "empty").touch()
    with ExitStack() as stack:
        match request.param:
            case "local":
                address = str(root)
            case "memory":
                address = f"memory://{uuid.uuid4().hex}"
                Folder.at(address).write("sub/file", DATA)
                Folder.at(address).write("empty", b"")
            case "zip":
                with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
                    archive.write(root / "sub" / "file", "sub/file")
                    archive.writestr("empty", b"")
                address = f"zip://::{tmp_path / 'x.zip'}"
            case "http":
                address = stack.enter_context(servers.http(root))
            case "http with ranges":
                address = stack.enter_context(servers.http(root, ranges=True))
            case "webhdfs":
                address = stack.enter_context(servers.webhdfs(root))
            case "ftp":
                monkeypatch.setitem(fsspec.config.conf, "ftp", {"username": "robot", "password": "secret"})
                address = stack.enter_context(servers.ftp(root, "robot", "secret"))
        yield Folder.at(address)


@pytest.mark.parametrize(("start", "size"), [(0, 10), (50_000, 50_000), (99_999, 1), (0, 100_000)])
def test_range_has_its_bytes(folder, start, size):
    places = [Range("sub/file", start, size), Range("sub/file", 7, 3)]
    assert list(folder.fetch_ranges(places)) == [DATA[start : start + size], DATA[7:10]]


def test_failed_range_is_an_error_among_the_others(folder):
    places = [Range("sub/file", 99_995, 10), Range("missing", 0, 10), Range("sub/file", 1, 1)]
    short, missing, last = folder.fetch_ranges(places)
    assert isinstance(short, ChangedFileError)
    assert isinstance(missing, OSError)
    assert last == DATA[1:2]


def test_info_has_the_size_of_a_file_alone(folder):
    assert [(folder.info(name).path, folder.info(name).size) for name in ("sub/file", "empty")] == [
        ("sub/file", 100_000),
        ("empty", 0),
    ]
    with pytest.raises(FileNotFoundError):
        folder.info("missing")


@pytest.mark.parametrize("folder", ["local"], indirect=True)
def test_range_of_another_version_is_an_error(folder):
    known = folder.info("sub/file").version
    whole, changed = folder.fetch_ranges([Range("sub/file", 0, 5, known), Range("sub/file", 0, 5, "another")])
    assert whole == DATA[:5]
    assert isinstance(changed, ChangedFileError)
    with pytest.raises(IsADirectoryError):
        folder.info("sub")


@pytest.mark.parametrize("folder", ["local", "memory"], indirect=True)
def test_written_file_appears_when_it_is_complete(folder):
    with folder.writing("new/large") as file:
        file.write(DATA)
        assert not folder.exists("new/large")
    assert folder.read("new/large") == DATA
    with folder.writing("new/large") as file:
        file.write(b"short")
    assert folder.read("new/large") == b"short"


@pytest.mark.parametrize("folder", ["local", "memory"], indirect=True)
def test_file_that_fails_while_it_is_written_does_not_appear(folder):
    def fail_while_writing(name):
        with folder.writing(name) as file:
            file.write(DATA)
            raise KeyboardInterrupt

    folder.write("sub/old", b"old")
    for name in ("sub/new", "sub/old"):
        with pytest.raises(KeyboardInterrupt):
            fail_while_writing(name)
    assert folder.read("sub/old") == b"old"
    assert (folder / "sub").names() == ["file", "old"]
