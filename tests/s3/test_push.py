"""Pushing a local folder to a real S3 server."""

import os

import pytest

from backends.aws.push import Pushed, push
from fruits.errors import InputError, SettingsError, StorageError
from fruits.storage.folder import Folder
from fruits.storage.stores import open_address


def write(root, files):
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)


def content(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def uploads(bucket):
    file_system, _ = open_address(bucket)
    found = file_system.call_s3("list_multipart_uploads", Bucket=bucket[5:]).get("Uploads", [])
    return sorted(upload["Key"] for upload in found)


def test_only_what_changed_goes_up(bucket, folder_of, tmp_path):
    files = {f"{label}/{index}.jpg": f"{label}{index}".encode() for label in ("a", "a-b", "é") for index in range(20)}
    write(tmp_path / "here", files)
    told = []
    done = push(tmp_path / "here", f"{bucket}/images", progress=told.append)
    total = sum(map(len, files.values()))
    assert done == Pushed(60, total, 60, total, 0, 0) == told[-1]
    assert [state.uploaded for state in told] == list(range(1, 61))
    assert content(folder_of(bucket) / "images") == files

    assert push(tmp_path / "here", f"{bucket}/images") == Pushed(60, total, 0, 0, 60, total)

    changed = {"a/3.jpg": b"A3", "a/7.jpg": b"longer than before", "z/new.jpg": b"new"}
    write(tmp_path / "here", changed)
    os.utime(tmp_path / "here" / "a" / "3.jpg", (0, 0))  # as long as before, and older: told by its content
    done = push(tmp_path / "here", f"{bucket}/images/")
    assert (done.uploaded, done.unchanged) == (3, 58)
    assert content(folder_of(bucket) / "images") == files | changed


def test_a_large_file_goes_up_in_parts_and_is_known_again(bucket, tmp_path, proxy):
    between = proxy()
    data = os.urandom(2**20) * 33
    write(tmp_path / "here", {"large": data})
    assert push(tmp_path / "here", bucket).uploaded == 1
    assert len([line for line in between.seen if "partNumber=" in line]) == 3
    assert Folder.at(bucket).read("large") == data
    assert push(tmp_path / "here", bucket).unchanged == 1


def test_a_push_removes_no_object_and_ends_no_upload_of_others(bucket, folder_of, tmp_path):
    """Of the uploads that are under way, only those of a file that it uploads in parts itself are aborted."""
    write(tmp_path / "here", {"large": bytes(33 * 2**20), "small": b"small", "same": b"same"})
    theirs = {".cache.tmp/file": b"theirs", ".mine.tmp": b"theirs", "same": b"same", "old": b"old"}
    write(folder_of(bucket) / "images", theirs)
    file_system, _ = open_address(bucket)
    kept = ["images/large-by-another", "images/same", "images/small", "other/large"]
    for key in (*kept, "images/large", "images/large"):
        file_system.call_s3("create_multipart_upload", Bucket=bucket[5:], Key=key)
    done = push(tmp_path / "here", f"{bucket}/images")
    assert (done.uploaded, done.unchanged) == (2, 1)
    assert content(folder_of(bucket) / "images").items() >= theirs.items()
    assert uploads(bucket) == kept


def test_a_push_that_was_stopped_goes_on(bucket, folder_of, tmp_path):
    files = {f"a/{index:03d}.jpg": f"{index}".encode() for index in range(100)}
    write(tmp_path / "here", files)

    def stop(state):
        if state.uploaded == 40:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        push(tmp_path / "here", f"{bucket}/images", progress=stop)
    done = push(tmp_path / "here", f"{bucket}/images")
    assert done.unchanged >= 40
    assert done.uploaded + done.unchanged == 100
    assert content(folder_of(bucket) / "images") == files


def test_what_cannot_be_pushed_says_why(bucket, tmp_path, proxy):
    write(tmp_path / "here", {"1.jpg": b"1"})
    (tmp_path / "empty").mkdir()
    for source, address, words in (
        (tmp_path / "nowhere", bucket, "no such folder"),
        (tmp_path / "empty", bucket, "no file"),
        (tmp_path / "here", str(tmp_path / "there"), "not on S3"),
    ):
        with pytest.raises(SettingsError, match=words):
            push(source, address)
    with pytest.raises(InputError, match="there is no bucket nowhere"):
        push(tmp_path / "here", "s3://nowhere/images")
    refused = b"<Error><Code>AccessDenied</Code><Message>No.</Message></Error>"
    proxy(answers={"/1.jpg": b"HTTP/1.1 403 No\r\nContent-Length: %d\r\n\r\n" % len(refused) + refused})
    with pytest.raises(StorageError, match=r"put_object is forbidden for s3://.*/1\.jpg.*What is uploaded stays"):
        push(tmp_path / "here", bucket)
