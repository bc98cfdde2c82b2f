"""The members of tar archives: every format, every cut, and hostile headers."""

from __future__ import annotations

import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fruits.errors import DatasetError
from fruits.images.tar.members import FEW, MANY, Window, read_members
from tests.unit.images.tar.archives import FORMATS, JPEG, archive, listed, member, window

LONG = "Aé/" + "long folder/" * 20 + "1.jpg"
FILES = [("Apple/1.jpg", JPEG), ("Apple/empty.jpg", b""), ("Banana/2.jpg", b"x" * 600), ("水果/🍑.png", b"y" * 512)]


def blocks(data: bytes, position: int, value: bytes) -> bytes:
    """Return an archive in which the first header has other bytes at a position, and the right checksum."""
    header = bytearray(data[:512])
    header[position : position + len(value)] = value
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + data[512:]


@pytest.mark.parametrize("form", FORMATS)
def test_members_of_every_format_are_found_with_their_bytes(form):
    files = FILES if form == "ustar" else [*FILES, (LONG, JPEG)]
    data = archive(files, form)
    found = listed(data)
    assert [(each.path, data[each.position : each.position + each.size]) for each in found] == files
    assert all(each.is_file for each in found)


def test_ustar_prefix_is_part_of_the_path():
    path = "folder/" * 20 + "1.jpg"
    assert [each.path for each in listed(archive([(path, JPEG)], "ustar"))] == [path]


@pytest.mark.parametrize("form", ["gnu", "pax"])
def test_names_that_are_not_utf_8_keep_their_bytes(form):
    path = "bytes\udcff/\udcfe" + "x" * 200
    assert [each.path for each in listed(archive([(path, JPEG)], form))] == [path]


def test_leading_dot_folder_is_removed_and_folders_are_ignored():
    files = [member("./", type=tarfile.DIRTYPE), member("./a/", type=tarfile.DIRTYPE), ("./a/1.jpg", JPEG)]
    assert [each.path for each in listed(archive(files))] == ["a/1.jpg"]


def test_old_folder_is_a_file_with_a_slash():
    data = archive([member("folder/", type=tarfile.AREGTYPE), ("folder/1.jpg", JPEG)], "ustar")
    assert [each.path for each in listed(data)] == ["folder/1.jpg"]


def test_devices_and_fifos_are_no_files():
    kinds = (tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE)
    data = archive([*(member("x", type=kind, size=512) for kind in kinds), ("1.jpg", JPEG)])
    assert [each.is_file for each in listed(data)] == [False, False, False, True]


def test_pax_records_of_path_and_size_count():
    header = member("short", size=5, pax_headers={"path": LONG, "size": "700", "comment": "x"})
    block = header.tobuf(tarfile.PAX_FORMAT)
    data = block + b"z" * 1024 + bytes(1024)
    (found,) = listed(data)
    assert (found.path, found.size, found.position) == (LONG, 700, len(block))


def test_base_256_size_counts():
    data = archive([("1.jpg", b"x" * 700)])
    data = blocks(data, 124, b"\x80" + (700).to_bytes(11, "big"))
    assert listed(data)[0].size == 700


@pytest.mark.parametrize("form", FORMATS)
def test_archive_cut_at_any_block_is_an_error_or_complete(form):
    files = FILES if form == "ustar" else [*FILES, (LONG, JPEG)]
    data = archive([(path, content * 30) for path, content in files], form)
    whole = listed(data)
    content = len(data.rstrip(b"\0"))
    end = -(-content // 512) * 512 + 1024
    for length in range(0, len(data), 512):
        if length >= end:
            assert listed(data[:length]) == whole
            continue
        with pytest.raises(DatasetError, match=r"x\.tar: at byte [\d,]+: .*(truncated|ends after)"):
            listed(data[:length])


@settings(max_examples=30, deadline=None)
@given(length=st.integers(0, 6000))
def test_archive_cut_anywhere_is_never_a_shorter_list(length):
    data = archive(FILES)
    try:
        found = listed(data[:length])
    except DatasetError:
        return
    assert found == listed(data)


@settings(max_examples=200, deadline=None)
@given(position=st.integers(0, 4095), value=st.integers(0, 255))
def test_changed_byte_of_a_header_is_an_error(position, value):
    data = bytearray(archive(FILES))
    headers = [each.position - 512 for each in listed(bytes(data))]
    before, data[position] = data[position], value
    try:
        found = listed(bytes(data))
    except DatasetError:
        return
    is_header = any(start <= position < start + 512 for start in headers)
    assert found == listed(archive(FILES))
    assert not is_header or before == value or bytes(data[position : position + 1]) in b" \0" or before in b" \0"


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ([member("a/link.jpg", type=tarfile.SYMTYPE, linkname="/etc/passwd")], "a/link.jpg is a link to /etc/passwd"),
        ([member("a/link.jpg", type=tarfile.LNKTYPE, linkname="a/1.jpg")], "is a link to a/1.jpg"),
        ([("/etc/1.jpg", JPEG)], "the path /etc/1.jpg is not one below a folder"),
        ([(".//1.jpg", JPEG)], "the path /1.jpg is not one"),
        ([("a/../../1.jpg", JPEG)], r"the path a/\.\./\.\./1.jpg is not one"),
        ([("..", JPEG)], r"the path \.\. is not one"),
        ([member("", size=0)], "the path '' is not one"),
        ([member("x", type=b"M")], "x is a member of the unknown type 'M'"),
        ([member("x", type=tarfile.GNUTYPE_SPARSE)], "x is a sparse file"),
        ([member("x", pax_headers={"GNU.sparse.major": "1"})], "x is a sparse file"),
        ([member("x", pax_headers={"size": "-1"})], "the size -1 of a member is not a number"),
        ([member("x", pax_headers={"size": "9" * 30})], "is not a number of bytes"),
        ([member("x", pax_headers={"size": str(10**12)})], "truncated: x has 1,000,000,000,000 bytes"),
        ([member("\x1b[31m/../x")], r"the path \\x1b"),
    ],
)
def test_member_that_is_refused_is_named_with_its_place(files, problem):
    with pytest.raises(DatasetError, match=r"^x\.tar: at byte [\d,]+: .*" + problem):
        listed(archive(files, "pax"))


def test_negative_size_is_refused():
    data = blocks(archive([("1.jpg", b"x" * 700)]), 124, b"\xff" * 11 + b"\x00")
    with pytest.raises(DatasetError, match="a member has the size -256"):
        listed(data)


def test_long_extension_headers_are_refused_and_many_are_read():
    huge = blocks(archive([("L", b"x" * 700)]), 124, b"%011o\0" % (2**30))
    with pytest.raises(DatasetError, match="an extension header of 1,073,741,824 bytes"):
        listed(blocks(huge, 156, b"L"))
    chained = archive([("L", b"a/1.jpg\0")])[:1024]
    chained = blocks(chained, 156, b"L")
    data = chained * 5000 + archive([("x", b"y")])
    assert [each.path for each in listed(data)] == ["a/1.jpg"]
    with pytest.raises(DatasetError, match="ends after an extension header"):
        listed(chained * 3 + bytes(1024))


@pytest.mark.parametrize(
    "record", [b"9 path=x", b"x path=y\n", b"99 path=y\n", b"0 path=y\n", b"9 pathx\n ", b"9path=x\n"]
)
def test_corrupt_pax_record_is_an_error(record):
    data = archive([("x", record)])[:1024] + archive([("1.jpg", JPEG)])
    with pytest.raises(DatasetError, match="at byte 0: an extension header is corrupt"):
        listed(blocks(data, 156, b"x"))


def test_global_header_may_comment_and_must_not_rename():
    assert listed(archive(FILES, "pax", pax_headers={"comment": "x"}))[0].path == "Apple/1.jpg"
    with pytest.raises(DatasetError, match="a global header sets path for all members"):
        listed(archive(FILES, "pax", pax_headers={"path": "x"}))


@pytest.mark.parametrize("gap", [0, 512, 10_240])
def test_second_archive_in_the_same_file_is_an_error(gap):
    with pytest.raises(DatasetError, match="bytes follow the end of the archive"):
        listed(archive(FILES) + bytes(gap) + archive(FILES))


@pytest.mark.parametrize("data", [b"", b"words" * 1000, JPEG + bytes(2000)])
def test_other_file_is_an_error(data):
    with pytest.raises(DatasetError, match=r"at byte 0: (not a header of tar|the archive is truncated)"):
        listed(data)


def test_compressed_archive_is_an_error_with_advice():
    import gzip

    with pytest.raises(DatasetError, match=r"compressed with gzip\. Decompress it"):
        listed(gzip.compress(archive(FILES)) + bytes(600))


def test_empty_archive_has_no_members():
    assert listed(bytes(1024)) == listed(bytes(10_240)) == []


def recorded(data: bytes) -> tuple[Window, list[tuple[int, int]]]:
    requests = []

    def read(start: int, end: int) -> bytes:
        requests.append((start, end))
        return data[start:end]

    return Window("x.tar", len(data), read), requests


def test_small_members_are_read_through_by_large_requests():
    data = archive([(f"{number}.jpg", b"x" * 5000) for number in range(5000)])
    reader, requests = recorded(data)
    assert sum(1 for _ in read_members(reader)) == 5000
    assert len(requests) == 2 + len(data) // MANY
    assert sum(end - start for start, end in requests) < len(data) + 10_000


def test_headers_alone_are_read_of_large_members():
    data = archive([(f"{number}.jpg", b"x" * 3_000_000) for number in range(10)])
    reader, requests = recorded(data)
    assert sum(1 for _ in read_members(reader)) == 10
    assert len(requests) == 11
    assert sum(end - start for start, end in requests) <= 11 * FEW


def test_file_that_becomes_shorter_is_an_error():
    data = archive(FILES)
    with pytest.raises(DatasetError, match="became shorter"):
        list(read_members(Window("x.tar", len(data), lambda start, end: data[start : min(end, 700)])))


def test_window_returns_earlier_bytes_too():
    data = bytes(range(256)) * 1000
    reader = window(data)
    for start in (0, 200_000, 5, 199_990, 255_990):
        assert reader.read(start, 20) == data[start : start + 20]
