"""Folders on a real S3 server."""

import os
import socket

import pytest

from fruits.errors import OutputError
from fruits.images.sources.kinds import open_source
from fruits.images.sources.listing import Listing
from fruits.storage.commits import OwnedFolder, claim
from fruits.storage.folder import Folder, is_temporary, part_name
from fruits.storage.prefetch import ChangedFileError, Range
from fruits.storage.s3.file_system import S3FileSystem
from tests.s3.proxy import FAULTS
from tests.s3.server import close_clients

JPEG = b"\xff\xd8\xff\xe0" + bytes(28)


def test_written_files_are_read_listed_and_removed(bucket):
    folder = Folder.at(f"{bucket}/out/")
    assert folder.address == f"{bucket}/out"
    assert (folder.names(), folder.exists("a"), folder.is_file()) == ([], False, False)
    folder.write("rows/part-00000.parquet", b"one")
    folder.write("rows/part-00000.parquet", b"two")
    folder.write("report.json", b"{}")
    for index in (100_000, 2):
        folder.write(f"rows/{part_name(index, 'parquet')}", b"")
    assert folder.read("rows/part-00000.parquet") == b"two"
    assert folder.exists("rows/part-00000.parquet")
    assert not folder.exists("rows")
    assert (folder / "report.json").is_file()
    assert folder.names() == ["report.json", "rows"]
    assert (folder / "rows").names() == ["part-00000.parquet", "part-00002.parquet", "part-100000.parquet"]
    with pytest.raises(FileNotFoundError):
        folder.read("rows/part-00001.parquet")
    folder.remove_files(["rows/part-00000.parquet", "rows/part-00002.parquet", "missing", "report.*"])
    assert (folder.names(), (folder / "rows").names()) == (["report.json", "rows"], ["part-100000.parquet"])


def test_a_part_of_a_batch_that_could_not_be_removed_is_removed_again(bucket, monkeypatch):
    folder, call, removed = Folder.at(bucket), S3FileSystem._call_s3, []
    for name in ("1", "2"):
        folder.write(name, b"")

    async def throttled(self, method, *given, **parameters):
        if method == "delete_objects":
            return {"Errors": [{"Key": each["Key"], "Code": "SlowDown"} for each in parameters["Delete"]["Objects"]]}
        removed.append(method)
        return await call(self, method, *given, **parameters)

    monkeypatch.setattr(S3FileSystem, "_call_s3", throttled)
    folder.remove_files(["1", "2"])
    assert removed == ["delete_object"] * 2
    assert folder.names() == []


def test_a_listing_that_does_not_continue_is_an_error(bucket, monkeypatch):
    async def truncated(self, method, *given, **parameters):
        return {"IsTruncated": True, "NextContinuationToken": "first"}

    monkeypatch.setattr(S3FileSystem, "_call_s3", truncated)
    with pytest.raises(OSError, match="cannot be listed"):
        Folder.at(bucket).names()


def test_servers_that_list_no_etags(bucket, monkeypatch):
    call = S3FileSystem._call_s3

    async def without_etags(self, method, *given, **parameters):
        response = await call(self, method, *given, **parameters)
        for entry in response.get("Contents", []):
            del entry["ETag"]
        return response

    monkeypatch.setattr(S3FileSystem, "_call_s3", without_etags)
    folder = Folder.at(bucket)
    folder.write("1", b"one")
    assert folder.files()["1"].version == ""
    assert list(folder.fetch([("1", 3, "")])) == [b"one"]


def test_a_server_that_never_answers_is_an_error(bucket, monkeypatch):
    monkeypatch.setattr("fruits.storage.s3.file_system.RESPONSE_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
        with pytest.raises(ConnectionError, match=rf'no response from S3 for {bucket}: Read timeout.*"{endpoint}/?"'):
            Folder.at(f"{bucket}/out").names()


def test_large_file_is_a_multipart_upload_and_a_small_one_a_put(bucket, proxy):
    between = proxy()
    folder = Folder.at(bucket)
    data = os.urandom(2**20) * 40
    folder.write("large", data)
    assert folder.read("large") == data
    uploads = [line for line in between.seen if "partNumber=" in line or "?uploads" in line or "uploadId=" in line]
    assert len(uploads) == 1 + 3 + 1
    folder.write("small", data[: 2**20])
    assert [line.split()[0] for line in between.seen if "/small" in line] == ["PUT"]


def test_failed_upload_is_aborted_and_keeps_the_old_object(bucket, proxy):
    folder = Folder.at(bucket)
    folder.write("large", b"old")
    refused = b"<Error><Code>AccessDenied</Code><Message>No.</Message></Error>"
    between = proxy(answers={"partNumber=2": b"HTTP/1.1 403 No\r\nContent-Length: %d\r\n\r\n" % len(refused) + refused})
    with pytest.raises(PermissionError, match=r"upload_part is forbidden for s3://.*/large"):
        Folder.at(bucket).write("large", bytes(40 * 2**20))
    assert any(line.startswith("DELETE") and "uploadId=" in line for line in between.seen)
    assert folder.read("large") == b"old"


def test_an_upload_that_a_lost_request_has_aborted_is_no_error(bucket, proxy):
    missing = b"<Error><Code>NoSuchUpload</Code><Message>The upload may have been aborted.</Message></Error>"
    between = proxy(answers={"DELETE ": b"HTTP/1.1 404 No\r\nContent-Length: %d\r\n\r\n" % len(missing) + missing})
    Folder.at(bucket).check()
    assert any(line.startswith("DELETE") and "uploadId=" in line for line in between.seen)


def test_markers_and_uploads_of_killed_writers_are_swept(bucket):
    folder = Folder.at(f"{bucket}/out")
    commit = claim(folder, {"command": "fit"}, {}, 1)
    file_system = S3FileSystem.from_settings(folder.s3)
    part = f"part-00000-{commit.owner}.parquet"
    earlier = "out/rows/part-00001-0123456789ab.parquet"
    for name in (f"out/rows/{part}", earlier, "out/large", f"out/inner/rows/{part}"):
        file_system.call_s3("create_multipart_upload", Bucket=bucket[5:], Key=name)
    with folder.begun("part-00000"):
        (mark,) = filter(is_temporary, folder.names())
    folder.write(mark, b"")
    with folder.begun("part-00000") as before:
        assert before
    folder.write(mark, b"")
    OwnedFolder(folder, commit.owner, 1).remove_leftovers([""])
    assert not any(map(is_temporary, folder.names()))
    left = file_system.call_s3("list_multipart_uploads", Bucket=bucket[5:])["Uploads"]
    assert [upload["Key"] for upload in left] == [f"out/inner/rows/{part}", "out/large"]


def test_many_files_are_read_with_concurrent_requests_and_a_bounded_window(bucket, folder_of, proxy):
    between = proxy(together=8)
    files = [(f"{index:03d}", 1000 + index, "") for index in range(200)]
    for name, size, _ in files:
        (folder_of(bucket) / name).write_bytes(name.encode() * (size // 3) + b"." * (size % 3))
    folder = Folder.at(bucket)
    requested = 0

    def requests():
        nonlocal requested
        for file in files:
            requested += 1
            yield file

    for index, data in enumerate(folder.fetch(requests(), ahead=16)):
        assert requested <= index + 17
        assert isinstance(data, bytes)
        assert data[:3] == files[index][0].encode()
        assert len(data) == files[index][1]
    assert index == 199
    assert 8 <= between.most_at_once <= 16
    assert len([line for line in between.seen if line.startswith("GET")]) == 200


def test_read_error_is_a_value_and_a_closed_reader_sends_no_more_requests(bucket, folder_of, proxy):
    between = proxy(delay=0.02)
    for index in range(100):
        (folder_of(bucket) / str(index)).write_bytes(b"x")
    folder = Folder.at(bucket)
    one, missing, other = folder.fetch([("1", 1, ""), ("missing", 1, ""), ("2", 1, "")])
    assert (one, other) == (b"x", b"x")
    assert isinstance(missing, FileNotFoundError)
    reader = folder.fetch(((f"{index}", 1, "") for index in range(100)), ahead=8)
    assert next(reader) == b"x"
    reader.close()
    assert folder.read("99") == b"x"
    assert len(between.seen) < 3 * 3 + 8 + 2


def test_files_are_complete_although_requests_fail(bucket, folder_of, proxy):
    files = {f"{index}": os.urandom(1000 + index) for index in range(300)}
    for name, data in files.items():
        (folder_of(bucket) / name).write_bytes(data)
    between = proxy(faults=0.1, seed=7)
    fetched = Folder.at(bucket).fetch([(name, len(data), "") for name, data in files.items()])
    assert list(fetched) == list(files.values())
    assert set(between.made) == set(FAULTS)


def test_only_the_first_files_are_read_through_botocore(bucket, folder_of, botocore_keys):
    for index in range(200):
        (folder_of(bucket) / f"{index}").write_bytes(bytes(5000))
    fetched = Folder.at(bucket).fetch(((f"{index}", 5000, "") for index in range(200)), ahead=8)
    assert sum(map(len, fetched)) == 1_000_000
    assert len(botocore_keys) <= 16


def test_keys_with_special_characters_are_read_literally(bucket, botocore_keys):
    direct = ["x%20y", "a%2Fb", "%", "a+b~c", "a*b", "it's (1)!", "a#b?c=d&e", "a@b:c;d,e=f$g", "x y", "x/y/z"]
    direct += ["ü é", "u\N{COMBINING DIAERESIS}", "日本/..x", "^{}|\\", '"<>"']
    indirect = ["a tab\t", "del\x7f"]
    names = ["first", *direct, *indirect]
    folder = Folder.at(bucket)
    for name in names:
        folder.write(name, name.encode())
    botocore_keys.clear()
    fetched = list(folder.fetch(((name, len(name.encode()), "") for name in names), ahead=1))
    assert botocore_keys == ["first", *indirect]
    assert fetched == [name.encode() for name in names]


def test_error_of_an_unreachable_folder_names_its_cause(bucket, monkeypatch):
    Folder.at(bucket).check()
    assert Folder.at(bucket).names() == []
    with pytest.raises(OutputError, match=r"s3://nowhere/out: the bucket nowhere does not exist at http://127"):
        Folder.at("s3://nowhere/out").check()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    close_clients()
    with pytest.raises(OutputError, match=r"the credentials for s3://.* were refused: SignatureDoesNotMatch"):
        Folder.at(bucket).check()


def test_file_changed_since_the_listing_is_an_error_without_another_request(bucket, folder_of, proxy):
    for index in range(9):
        (folder_of(bucket) / f"{index}.jpg").write_bytes(JPEG)
    entries = list(Listing(open_source(bucket)))
    assert all(entry.version for entry in entries)
    for index in (0, 7):  # the first is read through botocore, the other through obstore
        (folder_of(bucket) / f"{index}.jpg").write_bytes(JPEG[:-1] + b"\1")
    between = proxy()
    found = list(Folder.at(bucket).fetch([entry[:3] for entry in entries], ahead=1))
    assert [index for index, data in enumerate(found) if isinstance(data, ChangedFileError)] == [0, 7]
    assert [data for data in found if isinstance(data, bytes)] == [JPEG] * 7
    assert len([line for line in between.seen if line.startswith("GET")]) == 9 + 2  # a changed one is requested twice


def test_ranges_are_read_and_compared_with_the_version(bucket, proxy):
    folder = Folder.at(bucket)
    data = os.urandom(200_000)
    folder.write("shards/x.tar", data)
    info = folder.info("shards/x.tar")
    assert (info.path, info.size, len(info.version)) == ("shards/x.tar", 200_000, 32)
    between = proxy(together=5)
    folder = Folder.at(bucket)
    places = [Range("shards/x.tar", start, 5000, info.version) for start in range(0, 200_000, 5000)]
    assert b"".join(folder.fetch_ranges(places)) == data
    assert len([head for head in between.heads if "range: bytes=" in head]) == len(between.heads) == 40
    assert between.most_at_once >= 5
    changed, missing, last = folder.fetch_ranges(
        [Range("shards/x.tar", 0, 5, "0" * 32), Range("missing", 0, 5), Range("shards/x.tar", 199_999, 1)]
    )
    assert isinstance(changed, ChangedFileError)
    assert isinstance(missing, FileNotFoundError)
    assert last == data[-1:]
    with pytest.raises(IsADirectoryError):
        folder.info("shards")


def test_ranges_are_read_in_spite_of_failed_requests(bucket, proxy):
    folder = Folder.at(bucket)
    data = os.urandom(200_000)
    folder.write("x.tar", data)
    between = proxy(faults=0.1, seed=3)
    places = [Range("x.tar", start, 1000) for start in range(0, 200_000, 1000)]
    assert b"".join(Folder.at(bucket).fetch_ranges(places)) == data
    assert set(between.made) == set(FAULTS)


def test_file_of_any_size_is_uploaded_in_parts_when_it_is_complete(bucket, proxy):
    between = proxy()
    folder = Folder.at(bucket)
    data = os.urandom(2**20)
    with folder.writing("a/large") as file:
        for _ in range(40):
            file.write(data)
        assert not folder.exists("a/large")
    assert folder.read("a/large") == data * 40
    assert sum("partNumber=" in line for line in between.seen) == 3
