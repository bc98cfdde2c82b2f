"""Walks of local folders, of a generic file system, and of archives."""

import itertools
import os
import zipfile

import fsspec
import pytest

from fruits.storage.addresses import open_store
from fruits.storage.stores import BATCH

NAMES = ["b/1", "a/2", "a/10", "a-b/1", "c/c/c", "c/c.x", "é/🍑", "Z/1"]


@pytest.fixture(params=["local", "memory", "memory root", "zip", "zip root"])
def tree(request, tmp_path):
    if request.param == "local":
        for name in NAMES:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(name.encode())
        yield str(tmp_path)
    elif request.param.startswith("zip"):
        root = "" if request.param == "zip root" else "c"  # the name of a folder below it too
        with zipfile.ZipFile(tmp_path / "tree.zip", "w") as archive:
            for name in NAMES:
                archive.writestr(f"{root}/{name}".lstrip("/"), name.encode())
        yield f"zip://{root}::{tmp_path}/tree.zip"
    else:
        memory = fsspec.filesystem("memory")
        root = "" if request.param == "memory root" else "/tree"
        for name in NAMES:
            memory.pipe_file(f"{root}/{name}", name.encode())
        yield f"memory://{root}"
        memory.rm("/", recursive=True)


def walked(address):
    store, path = open_store(address)
    return list(itertools.chain.from_iterable(store.walk(path)))


def test_files_come_in_code_point_order_of_their_paths_and_are_readable(tree):
    files = walked(tree)
    assert [file.path for file in files] == sorted(NAMES)
    assert [file.size for file in files] == [len(name.encode()) for name in sorted(NAMES)]
    assert all(file.is_file and not file.unfollowed for file in files)
    store, path = open_store(tree)
    heads = store.read_heads([f"{path}/{file.path}" for file in files], 100)
    assert heads == [name.encode() for name in sorted(NAMES)]


def test_names_that_are_not_utf_8_come_in_the_order_of_their_bytes(tmp_path):
    names = [b"a/1", b"\xc3\xa9", b"\xf0\x9f\x8d\x91", b"\xff"]
    (tmp_path / "a").mkdir()
    for name in reversed(names):
        (tmp_path / os.fsdecode(name)).write_bytes(name)
    assert [os.fsencode(file.path) for file in walked(str(tmp_path))] == names


def test_missing_folder_and_file_are_different_errors(tree):
    store, path = open_store(tree)
    with pytest.raises(FileNotFoundError):
        list(store.walk(f"{path}/missing"))
    with pytest.raises(NotADirectoryError):
        list(store.walk(f"{path}/b/1"))


def test_folder_is_listed_after_the_files_before_it_are_yielded(tmp_path):
    (tmp_path / "a").write_bytes(b"")
    (tmp_path / "b").mkdir()
    store, path = open_store(str(tmp_path))
    batches = store.walk(path)
    assert [file.path for file in next(batches)] == ["a"]
    (tmp_path / "b" / "late").write_bytes(b"")
    assert [file.path for file in next(batches)] == ["b/late"]


def test_batches_are_bounded(tmp_path):
    for index in range(BATCH + 1):
        os.mknod(tmp_path / f"{index:05d}")
    store, path = open_store(str(tmp_path))
    assert [len(batch) for batch in store.walk(path)] == [BATCH, 1]


def test_special_files_and_links_are_labelled(tmp_path):
    (tmp_path / "outside").write_bytes(b"123")
    root = tmp_path / "root"
    (root / "folder").mkdir(parents=True)
    (root / "file").write_bytes(b"12")
    os.mkfifo(root / "fifo")
    for name, target in (("out", "../outside"), ("in", "file"), ("broken", "missing"), ("round", "folder")):
        (root / name).symlink_to(target)
    kinds = {file.path: (file.size, file.is_file, file.unfollowed) for file in walked(str(root))}
    assert kinds.pop("round")[1:] == (False, True)
    assert kinds == {
        "broken": (0, True, False),
        "fifo": (0, False, False),
        "file": (2, True, False),
        "in": (2, True, False),
        "out": (3, True, True),
    }


def test_error_of_listing_a_folder_names_the_folder(tmp_path, monkeypatch):
    (tmp_path / "closed").mkdir()
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("closed/"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(OSError, match=r"closed cannot be listed: .*Permission denied.*Make it readable"):
        walked(str(tmp_path))
