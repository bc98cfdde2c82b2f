"""Addresses of tar archives."""

from __future__ import annotations

import pytest

from fruits.errors import DatasetError, SettingsError
from fruits.images.tar.shards import INCOMPLETE, find_shards, is_tar, shard_folder
from fruits.storage.folder import Folder


@pytest.mark.parametrize("address", ["x.tar", "s3://b/{000..999}.tar", "a/*.tar", "zip://a.tar::b.zip", "X.TAR"])
def test_addresses_of_archives_end_with_tar(address):
    assert is_tar(address)


@pytest.mark.parametrize("address", ["x.tar.gz", "s3://b/{0..9}.tgz", "x.tar.zst", "X.TAR.XZ"])
def test_compressed_archives_are_recognised(address):
    assert is_tar(address)
    with pytest.raises(SettingsError, match="a compressed archive"):
        shard_folder(address)


@pytest.mark.parametrize("address", ["tar", "a.tar/b", "a.tar/", "s3://tar", "a.tarp"])
def test_other_addresses_are_none_of_archives(address):
    assert not is_tar(address)


@pytest.mark.parametrize(
    ("address", "folder", "pattern"),
    [
        ("x.tar", ".", "x.tar"),
        ("/x.tar", "/", "x.tar"),
        ("a/b/{0..9}.tar", "a/b", "{0..9}.tar"),
        ("s3://bucket/x.tar", "s3://bucket", "x.tar"),
        ("s3://bucket/{a,b}/*.tar", "s3://bucket", "{a,b}/*.tar"),
        ("memory://x.tar", "memory://", "x.tar"),
        ("zip://a/x.tar::s3://b/{c}.zip", "zip://a::s3://b/{c}.zip", "x.tar"),
    ],
)
def test_address_is_split_before_its_first_pattern(address, folder, pattern):
    assert shard_folder(address) == (folder, pattern)


def test_bucket_must_not_be_a_pattern():
    with pytest.raises(DatasetError, match="the bucket or host cannot be a pattern"):
        shard_folder("s3://{a,b}/x.tar")


@pytest.fixture
def folder(tmp_path):
    for name in ("000", "001", "002", "010", "a[1]"):
        (tmp_path / f"{name}.tar").write_bytes(b"x" * 512)
    (tmp_path / "other.txt").touch()
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "000.tar").touch()
    return Folder.at(tmp_path)


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("001.tar", ["001.tar"]),
        ("{000..002}.tar", ["000.tar", "001.tar", "002.tar"]),
        ("{002..000}.tar", ["002.tar", "001.tar", "000.tar"]),
        ("0{0..0}{1,2}.tar", ["001.tar", "002.tar"]),
        ("{sub/,}000.tar", ["sub/000.tar", "000.tar"]),
        ("*.tar", ["000.tar", "001.tar", "002.tar", "010.tar", "a[1].tar"]),
        ("00?.tar", ["000.tar", "001.tar", "002.tar"]),
        ("a[1].tar", ["a[1].tar"]),
        ("a[?].tar", ["a[1].tar"]),
        ("{sub,.}/0*0.tar", ["sub/000.tar", "./000.tar", "./010.tar"]),
    ],
)
def test_pattern_names_archives_in_its_order(folder, pattern, names):
    found = find_shards(folder, pattern)
    assert [each.path for each in found] == names
    assert all(each.version for each in found)


def test_file_with_the_literal_name_of_a_pattern_is_that_file(folder, tmp_path):
    (tmp_path / "{0..9}.tar").touch()
    assert [each.path for each in find_shards(folder, "{0..9}.tar")] == ["{0..9}.tar"]


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [
        ("{000..003}.tar", "003.tar: no such file"),
        ("sub.tar", "sub.tar: no such file"),
        ("x*.tar", "no file matches"),
        ("{a}.tar", r"\{a\} is not allowed"),
        ("{000..001.tar", "not a pattern"),
        ("{0,{1,2}}.tar", "not a pattern"),
        ("{0..99999999}.tar", "more than 1,000,000 numbers"),
        ("{0..9999}{0..9999}.tar", "not a pattern of at most 1,000,000"),
        ("s*b/000.tar", r"\* and \? are allowed in file names only"),
        ("{000,000}.tar", "names 000.tar twice"),
    ],
)
def test_pattern_without_its_archives_is_an_error(folder, pattern, problem):
    with pytest.raises(DatasetError, match=problem):
        find_shards(folder, pattern)


def test_folder_named_as_an_archive_is_an_error(folder, tmp_path):
    (tmp_path / "photos.tar").mkdir()
    with pytest.raises(DatasetError, match=r"photos\.tar: no such file"):
        find_shards(folder, "photos.tar")


def test_archives_of_an_unfinished_pack_are_refused(folder, tmp_path):
    (tmp_path / INCOMPLETE).touch()
    with pytest.raises(DatasetError, match="fruits pack has not finished these archives"):
        find_shards(folder, "{000..001}.tar")
