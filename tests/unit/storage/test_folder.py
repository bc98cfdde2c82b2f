import errno
import os
import pickle
import re

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from fruits.errors import OutputError
from fruits.storage import addresses
from fruits.storage.addresses import open_store
from fruits.storage.commits import OwnedFolder
from fruits.storage.folder import Folder, is_temporary, part_name
from fruits.storage.generic import FsspecStore
from fruits.storage.local import LocalStore
from fruits.storage.prefetch import ChangedFileError
from tests.unit.storage import servers


@pytest.fixture(params=["local", "memory"])
def folder(request, tmp_path):
    if request.param == "local":
        yield Folder.at(str(tmp_path / "out"))
        return
    yield Folder.at(f"memory://{tmp_path.name}/out")
    memory = fsspec.filesystem("memory")
    if memory.exists(f"/{tmp_path.name}"):
        memory.rm(f"/{tmp_path.name}", recursive=True)


def test_written_file_is_read_back(folder):
    folder.write("a/b/part-00000.parquet", b"one")
    folder.write("a/b/part-00000.parquet", b"two")
    assert folder.read("a/b/part-00000.parquet") == b"two"
    assert (folder / "a" / "b").read("part-00000.parquet") == b"two"
    assert folder.exists("a/b/part-00000.parquet")
    assert not folder.exists("a/b")
    assert not folder.exists("a/b/part-00001.parquet")


def test_names_and_files_are_sorted_and_empty_for_a_missing_folder(folder):
    assert (folder.names(), folder.files()) == ([], {})
    for index in (100_000, 2, 10):
        folder.write(part_name(index, "csv"), b"")
    folder.write("report.json", b"{}")
    folder.write("folder/file", b"")
    parts = ["part-00002.csv", "part-00010.csv", "part-100000.csv"]
    assert folder.names() == ["folder", *parts, "report.json"]
    assert list(folder.files()) == [*parts, "report.json"]
    assert [file.size for file in folder.files().values()] == [0, 0, 0, 2]
    assert all(file.modified > 0 for file in folder.files().values())


def test_file_has_neither_names_nor_files_as_a_folder_would(folder):
    folder.write("file", b"")
    assert (folder / "file").names() == []


def test_files_are_removed_by_their_names_and_not_by_patterns(folder):
    for name in ("[ab]", "a", "b"):
        folder.write(name, b"")
    folder.remove_files(["[ab]", "missing", "a"])
    assert folder.names() == ["b"]


def test_a_server_with_folders_stores_an_output(tmp_path, monkeypatch):
    monkeypatch.setitem(fsspec.config.conf, "ftp", {"username": "robot", "password": "secret"})
    with servers.ftp(tmp_path, "robot", "secret", writable=True) as url:
        folder = Folder.at(f"{url}/new/out")
        assert folder.create("commits/00000001.json", b"one")
        folder.write("rows/part-00000.csv", b"two")
        with folder.begun("part-00000"):
            (tmp_path / "new" / "out" / ".part-00000.begun.tmp").unlink()  # by a twin
        folder.remove_files(["commits/00000001.json", "missing"])
        assert (folder.names(), folder.read("rows/part-00000.csv")) == (["commits", "rows"], b"two")
        with pytest.raises(OSError, match="cannot be written: error_perm 550"):
            folder.write("rows", b"a folder")


def test_the_longest_names_are_written(tmp_path):
    Folder.at(str(tmp_path)).write("é" * 125 + ".onnx", b"one")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"one"]


def test_errors_of_implementations_are_os_errors(monkeypatch):
    class Refusing(MemoryFileSystem):
        protocol = "refusing"

        def rm_file(self, path):
            raise NotImplementedError

        def rm(self, path):
            if path.endswith("kept"):
                raise ValueError("refused")
            del self.store[path]

    fsspec.register_implementation("refusing", Refusing, clobber=True)
    folder = Folder.at("refusing://out")
    for name in ("kept", "1"):
        folder.write(name, b"")
    folder.remove_files(["missing", "1"])
    with pytest.raises(OSError, match="ValueError: refused"):
        folder.remove_files(["kept"])
    assert folder.names() == ["kept"]


def test_file_is_distinguished_from_a_folder(folder):
    folder.write("file", b"")
    assert (folder / "file").is_file()
    assert not folder.is_file()


def test_file_larger_than_the_limit_is_not_read(folder):
    folder.write("file", b"12345")
    assert folder.read("file", limit=5) == b"12345"
    with pytest.raises(OSError, match="more than 4 bytes") as caught:
        folder.read("file", limit=4)
    assert caught.value.errno == errno.EFBIG


def test_corrupt_json_is_an_error(folder):
    folder.write_json("job.json", {"a": 1})
    assert folder.read_json("job.json") == {"a": 1}
    for corrupt in (b'{"a": ', b"[1]"):
        folder.write("job.json", corrupt)
        with pytest.raises(OutputError, match=r"job\.json is corrupt.*`overwrite`"):
            folder.read_json("job.json")


def test_failed_write_keeps_the_old_file_and_leaves_no_temporary_file(tmp_path, monkeypatch):
    folder = Folder.at(str(tmp_path))
    folder.write("part", b"old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        folder.write("part", b"new")
    assert folder.names() == ["part"]
    assert folder.read("part") == b"old"


def test_temporary_file_of_a_killed_writer_is_swept(tmp_path):
    (tmp_path / ".part-00000.parquet.0123456789abcdef.tmp").write_bytes(b"half")
    (tmp_path / "part-00001.parquet").write_bytes(b"whole")
    folder = Folder.at(str(tmp_path))
    OwnedFolder(folder).remove_leftovers([""])
    assert folder.names() == ["part-00001.parquet"]


def test_write_is_repeated_after_a_concurrent_sweep(tmp_path, monkeypatch):
    folder = Folder.at(str(tmp_path))
    fsync = os.fsync

    def swept(file):
        fsync(file)
        monkeypatch.setattr(os, "fsync", fsync)
        OwnedFolder(folder).remove_leftovers([""])

    monkeypatch.setattr(os, "fsync", swept)
    folder.write("part", b"whole")
    assert (folder.names(), folder.read("part")) == (["part"], b"whole")


def test_begun_work_is_marked_until_it_ends_or_fails(folder):
    with folder.begun("part-00000.parquet") as before:
        assert not before
        assert [is_temporary(name) for name in folder.names()] == [True]
        with folder.begun("part-00000.parquet") as twin, folder.begun("part-00001.parquet") as other:
            assert (twin, other) == (True, False)
    with pytest.raises(ValueError, match="it"), folder.begun("part-00000.parquet"):
        raise ValueError("it")
    assert folder.names() == []


def test_addresses_become_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Folder.at("out").address == str(tmp_path / "out")
    assert Folder.at("a#b/50%?::").address == str(tmp_path / "a#b" / "50%?::")
    assert Folder.at("memory://a/b/").address == "memory://a/b"
    assert Folder.at(f"file://{tmp_path}/out/").address == str(tmp_path / "out")


def test_address_selects_the_store(tmp_path):
    for address, kind in ((str(tmp_path), LocalStore), (f"file://{tmp_path}", LocalStore), ("memory://a", FsspecStore)):
        store, _ = open_store(address)
        assert type(store) is kind


def test_folder_pickles_by_its_address(folder):
    assert pickle.loads(pickle.dumps(folder)) == folder


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("nonsense://x", "nonsense://x: cannot be opened"),
        ("", "empty path"),
        ("a\0b", r"^a\\x00b: a NUL"),
        ("s3://bucket/\ud800", r"half a surrogate pair"),
        ("s3://key:s3cret@bucket/x", r"s3://\*\*\*: the address contains credentials"),
    ],
)
def test_invalid_address_is_rejected_without_showing_secrets(address, text):
    with pytest.raises(OutputError, match=text) as caught:
        open_store(address)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(("address", "package"), [("s3://bucket/x", "'fruits[s3]'"), ("https://host/x", "aiohttp")])
def test_address_whose_package_is_missing_names_it(address, package, monkeypatch):
    def absent(*values):
        raise ModuleNotFoundError("No module named 'aiohttp'", name="aiohttp")

    monkeypatch.setattr(addresses, "_open_s3", absent)
    monkeypatch.setattr(addresses, "_open_url", absent)
    with pytest.raises(
        OutputError, match=re.escape(f"No module named 'aiohttp'. Install it with: pip install {package}.")
    ):
        open_store(address)


def test_files_are_fetched_in_order_and_an_error_is_a_value(folder):
    for index in range(5):
        folder.write(f"{index}", b"%d" % index)
    three, missing, zero, four = folder.fetch([(name, 1, "") for name in ("3", "missing", "0", "4")])
    assert (three, zero, four) == (b"3", b"0", b"4")
    assert isinstance(missing, FileNotFoundError)


def test_file_changed_since_the_listing_is_an_error(tmp_path):
    (tmp_path / "1").write_bytes(b"one")
    folder = Folder.at(str(tmp_path))
    listed = folder.files()["1"].version
    assert listed == str((tmp_path / "1").stat().st_mtime)
    assert list(folder.fetch([("1", 3, listed), ("1", 3, "")])) == [b"one"] * 2
    other_size, other_version = folder.fetch([("1", 4, listed), ("1", 3, "1.0")])
    assert isinstance(other_size, ChangedFileError)
    assert "3 bytes; 4 when" in str(other_size)
    assert isinstance(other_version, ChangedFileError)
    assert f"version {listed}; 1.0 when" in str(other_version)
