"""The same tree gives the same plan on every store, and its images can be read by its complete address."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import sys
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.utils import infer_storage_options

from fruits.errors import DatasetError, OutputError
from fruits.images.sources.kinds import open_source
from fruits.images.sources.listing import Listing
from fruits.storage.addresses import absolute
from fruits.storage.folder import Folder
from tests import trees
from tests.unit.storage import servers

NOT_UTF_8 = os.fsdecode(b"\xff")
# Characters that names on a store cannot have. fsspec drops the part after a ? from paths of FTP and WebHDFS.
EXCLUDED = {"zip": NOT_UTF_8, "ftp": f"{NOT_UTF_8}\n\r?", "webhdfs": f"{NOT_UTF_8}\n\r?"}
STORES = ["local", "memory", "zip", "http", "ftp", "webhdfs"]


@pytest.fixture
def address(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Yield the address of the tree on the store that the test names."""
    files = trees.tree(EXCLUDED.get(request.param, ""))
    if request.param == "memory":
        memory = fsspec.filesystem("memory")
        for name, data in files.items():
            memory.pipe_file(f"/{tmp_path.name}/{name}", data)
        yield f"memory://{tmp_path.name}"
        memory.rm(f"/{tmp_path.name}", recursive=True)
        return
    if request.param == "zip":
        with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
            for name, data in files.items():
                archive.writestr(name, data)
        monkeypatch.chdir(tmp_path)
        yield "zip://::images.zip"
        return
    trees.write(tmp_path / "images", files)
    with ExitStack() as stack:
        if request.param == "local":
            yield str(tmp_path / "images")
        elif request.param == "http":
            yield f"{stack.enter_context(servers.http(tmp_path))}/images"
        elif request.param == "webhdfs":
            yield f"{stack.enter_context(servers.webhdfs(tmp_path))}/images"
        else:
            monkeypatch.setitem(fsspec.config.conf, "ftp", {"username": "robot", "password": "secret"})
            yield f"{stack.enter_context(servers.ftp(tmp_path, 'robot', 'secret'))}/images"


@pytest.mark.parametrize("address", STORES, indirect=True)
def test_same_tree_gives_the_same_plan(address: str, request: pytest.FixtureRequest) -> None:
    store = request.node.callspec.params["address"]
    assert trees.planned(address) == trees.expected(EXCLUDED.get(store, ""))


@pytest.mark.parametrize("address", STORES, indirect=True)
def test_listed_images_are_read_without_being_changed(address: str) -> None:
    files = trees.tree()
    entries = list(Listing(open_source(address)))
    contents = list(open_source(address).read(entries))
    assert contents == [files[entry.path] for entry in entries]


def test_folder_that_an_ftp_server_cannot_open_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trees.write(tmp_path, {"Apple/1.jpg": trees.PICTURE, f"Pear{NOT_UTF_8}/1.jpg": trees.PICTURE})
    monkeypatch.setitem(fsspec.config.conf, "ftp", {"username": "robot", "password": "secret"})
    with servers.ftp(tmp_path, "robot", "secret") as url:  # it replaces the byte in names by a question mark
        with pytest.raises(
            DatasetError, match=r"Pear\? cannot be listed: error_perm 550 No such file or directory\. Make it"
        ):
            list(Listing(open_source(url)))
        assert [entry.path for entry in Listing(open_source(f"{url}/Apple"))] == ["1.jpg"]


def _read(folder: Folder, name: str) -> bytes:
    return folder.read(name)


@pytest.mark.parametrize("address", ["local", "zip", "http", "webhdfs"], indirect=True)
def test_address_is_complete_in_another_process(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Folder.at(address)
    monkeypatch.chdir("/")
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(_read, (folder, "Apple/1.jpg")) == trees.PICTURE
        assert pool.apply(_read, (folder / "Apple", "1.jpg")) == trees.PICTURE


class Hdfs(MemoryFileSystem):
    """A stand-in for fsspec's HDFS, whose driver needs Java: an address selects the host and the port of its server."""

    protocol = "hdfs"

    def __init__(self, host: str = "", port: int = 0, **options: str) -> None:
        super().__init__(host=host, port=port, **options)
        self.store = self.servers.setdefault((host, port), {})  # type: ignore[misc]
        self.pseudo_dirs = [""]  # type: ignore[misc]

    servers: ClassVar[dict[tuple[str, int], dict[str, object]]] = {}

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(infer_storage_options(path)["path"]).rstrip("/")

    @staticmethod
    def _get_kwargs_from_urls(path: str) -> dict[str, object]:
        options = infer_storage_options(path)
        return {name: options[name] for name in ("host", "port") if name in options}


def test_address_of_hdfs_keeps_its_host_and_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules["fsspec.registry"]._registry, "hdfs", Hdfs)
    for port in (8020, 9000):
        Hdfs("node", port).pipe_file("/images/Apple/1.jpg", b"\xff\xd8\xff%d" % port)
    for port in (8020, 9000):
        address = f"hdfs://node:{port}/images"
        folder = pickle.loads(pickle.dumps(Folder.at(f"{address}/")))
        assert folder.address == address
        (content,) = open_source(address).read(Listing(open_source(address)))
        assert content == b"\xff\xd8\xff%d" % port


@pytest.mark.parametrize(
    ("given", "complete"),
    [
        ("zip://::images.zip", "zip://::{here}/images.zip"),
        ("zip://a/b/::images.zip", "zip://a/b::{here}/images.zip"),
        ("zip://a::zip://b.zip::c.zip", "zip://a::zip://b.zip::{here}/c.zip"),
        ("http://127.0.0.1:9/a%20b/", "http://127.0.0.1:9/a%20b"),
        ("s3a://bucket/folder/", "s3://bucket/folder"),
        ("memory://a/b/", "memory://a/b"),
        ("file:///a/b/", "/a/b"),
        ("a/../b", "{here}/b"),
    ],
)
def test_complete_address(given: str, complete: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("images.zip", "c.zip"):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("b.zip", (tmp_path / "images.zip").read_bytes())
    assert absolute(given) == complete.format(here=tmp_path)


def test_folder_below_an_archive_is_a_folder_in_it() -> None:
    assert (Folder("zip://a::s3://b/c.zip") / "d").address == "zip://a/d::s3://b/c.zip"
    assert (Folder("/a::b") / "c").address == "/a::b/c"


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("ftp://robot:secret@127.0.0.1/images", "contains a password.*FSSPEC_FTP_PASSWORD"),
        ("zip://::http://robot:secret@127.0.0.1/images.zip", "contains a password"),
        ("zip::http://127.0.0.1/images.zip", "zip://folder::archive.zip"),
        ("s3://", r"s3://: the bucket is missing\. Give it, such as s3://bucket/folder"),
    ],
)
def test_incomplete_address_or_one_with_a_password_is_refused(address: str, message: str) -> None:
    with pytest.raises(OutputError, match=message) as caught:
        Folder.at(address)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("address", "message"),
    [("zip://out::images.zip", "ZIP archives are only read"), ("http://127.0.0.1:9/out", "web servers are only read")],
)
def test_store_that_is_only_read_is_refused_as_output(
    address: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    zipfile.ZipFile("images.zip", "w").close()
    with pytest.raises(OutputError, match=rf"^`out` = .*: {message}\. Give .*\.$"):
        Folder.at(address).check()
