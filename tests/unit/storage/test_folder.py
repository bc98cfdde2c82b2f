import os

import pytest

from fruits.errors import OutputError
from fruits.storage.folder import Folder, is_temporary, part_name
from fruits.storage.prefetch import ChangedFileError, fetch
from fruits.storage.stores import open_address


@pytest.fixture(params=["local", "memory"])
def folder(request, tmp_path):
    folder = Folder.at(str(tmp_path / "out") if request.param == "local" else f"memory://{tmp_path.name}/out")
    yield folder
    file_system, path = open_address(folder.address)
    if file_system.exists(path):
        file_system.rm(path, recursive=True)


def test_what_is_written_is_read_back(folder):
    folder.write("a/b/part-00000.parquet", b"one")
    folder.write("a/b/part-00000.parquet", b"two")
    assert folder.read("a/b/part-00000.parquet") == b"two"
    assert (folder / "a" / "b").read("part-00000.parquet") == b"two"
    assert folder.exists("a/b/part-00000.parquet")
    assert not folder.exists("a/b")
    assert not folder.exists("a/b/part-00001.parquet")


def test_names_and_parts_are_sorted_and_empty_where_there_is_no_folder(folder):
    assert folder.names() == []
    assert folder.parts() == []
    for index in (100_000, 2, 10):
        folder.write(part_name(index, "csv"), b"")
    folder.write("report.json", b"{}")
    assert folder.parts() == [2, 10, 100_000]
    assert folder.names() == ["part-00002.csv", "part-00010.csv", "part-100000.csv", "report.json"]


def test_remove_takes_files_and_folders_and_minds_nothing_missing(folder):
    folder.write("a/1", b"")
    folder.write("2", b"")
    for name in ("a", "2", "never there"):
        folder.remove(name)
    assert folder.names() == []


def test_a_file_is_told_from_a_folder(folder):
    folder.write("file", b"")
    assert (folder / "file").is_file()
    assert not folder.is_file()


def test_damaged_json_is_said(folder):
    folder.write_json("job.json", {"a": 1})
    assert folder.read_json("job.json") == {"a": 1}
    for damaged in (b'{"a": ', b"[1]"):
        folder.write("job.json", damaged)
        with pytest.raises(OutputError, match=r"job\.json is damaged.*--overwrite"):
            folder.read_json("job.json")


def test_a_writer_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    folder = Folder.at(str(tmp_path))
    folder.write("part", b"old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        folder.write("part", b"new")
    assert folder.names() == ["part"]
    assert folder.read("part") == b"old"


def test_what_a_killed_writer_left_is_swept(tmp_path):
    (tmp_path / ".part-00000.parquet.0123456789abcdef.tmp").write_bytes(b"half")
    (tmp_path / "part-00001.parquet").write_bytes(b"whole")
    folder = Folder.at(str(tmp_path))
    assert folder.parts() == [1]
    folder.sweep()
    assert folder.names() == ["part-00001.parquet"]


def test_what_another_sweeps_away_while_it_is_written_is_written_again(tmp_path, monkeypatch):
    folder = Folder.at(str(tmp_path))
    written = os.fsync

    def swept(file):
        written(file)
        monkeypatch.setattr(os, "fsync", written)
        folder.sweep()

    monkeypatch.setattr(os, "fsync", swept)
    folder.write("part", b"whole")
    assert (folder.names(), folder.read("part")) == (["part"], b"whole")


def test_work_that_has_begun_is_marked_until_it_ends_or_fails(folder):
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
    assert Folder.at("memory://a/b/").address == "memory:///a/b"


def test_an_unknown_protocol_is_refused():
    with pytest.raises(OutputError, match="nonsense://x"):
        open_address("nonsense://x")


def test_files_are_fetched_in_order_and_an_error_is_a_value(folder):
    for index in range(5):
        folder.write(f"{index}", b"%d" % index)
    file_system, path = open_address(folder.address)
    names = ["3", "never there", "0", "4"]
    three, missing, zero, four = fetch(file_system, [(f"{path}/{name}", 1, "") for name in names])
    assert (three, zero, four) == (b"3", b"0", b"4")
    assert isinstance(missing, FileNotFoundError)


def test_a_file_that_is_not_as_it_was_listed_is_said(tmp_path):
    path = tmp_path / "1"
    path.write_bytes(b"one")
    listed = str(path.stat().st_mtime)
    file_system, _ = open_address(str(path))
    assert list(fetch(file_system, [(str(path), 3, listed), (str(path), 3, "")])) == [b"one"] * 2
    other_size, other_version = fetch(file_system, [(str(path), 4, listed), (str(path), 3, "1.0")])
    assert isinstance(other_size, ChangedFileError)
    assert "3 bytes; 4 when" in str(other_size)
    assert isinstance(other_version, ChangedFileError)
    assert f"version {listed}; 1.0 when" in str(other_version)
