"""Images and labels in archives of the layout of WebDataset."""

from __future__ import annotations

import json

import pytest

from fruits.errors import DatasetError
from fruits.images.tar import samples
from fruits.images.tar.members import read_members
from fruits.images.tar.samples import key_of, read_samples, stem_of
from tests.unit.images.tar.archives import JPEG, archive, member, window


def read(files, **options):
    """Return the paths and labels of an archive, and what was skipped."""
    skipped = []
    reader = window(archive(files))
    found = read_samples(reader, read_members(reader), lambda *each: skipped.append(each), **options)
    return [(each.path, each.label) for each in found], skipped


@pytest.mark.parametrize(
    ("path", "key", "stem"),
    [
        ("a/1.jpg", "a/1", "a/1"),
        ("a.b/1.left.jpg", "a.b/1", "a.b/1.left"),
        ("a/1", "a/1", "a/1"),
        ("a/.1.jpg", "a/.1", "a/.1"),
        ("a/.jpg", "a/.jpg", "a/.jpg"),
    ],
)
def test_key_ends_at_the_first_dot_of_the_name_and_stem_at_the_last(path, key, stem):
    assert (key_of(path), stem_of(path)) == (key, stem)


@pytest.mark.parametrize(
    ("labels", "label"),
    [
        ({"cls": b"3"}, "3"),
        ({"cls": b" Apple Braeburn\n"}, "Apple Braeburn"),
        ({"txt": b"Apple"}, "Apple"),
        ({"cls": b"\xef\xbb\xbfApple\r\n"}, "Apple"),
        ({"txt": b"bytes\xff"}, "bytes\udcff"),
        ({"json": b'{"label": "Apple", "size": 3}'}, "Apple"),
        ({"json": b'{"label": 7}'}, "7"),
        ({"json": b'{"label": ["a", "b"]}'}, ("a", "b")),
        ({"json": b'{"label": null}'}, ""),
        ({"json": rb'{"label": "\udcff"}'}, "\udcff"),
        ({"cls": b"1", "json": b'{"label": "x"}', "txt": b"y"}, "1"),
        ({"json": b'{"label": "x"}', "txt": b"y"}, "x"),
        ({"json": b'{"height": 3}', "txt": b"y"}, "y"),
        ({"json": b"[1, 2]", "txt": b"y"}, "y"),
        ({"cls": b"\n", "txt": b"y"}, "y"),
        ({"json": b'{"height": 3}'}, None),
        ({}, None),
    ],
)
@pytest.mark.parametrize("before", [False, True])
def test_label_is_that_of_the_first_member_that_gives_one(labels, label, before):
    files = [(f"a/1.{extension}", content) for extension, content in labels.items()]
    image = [("a/1.jpg", JPEG)]
    assert read([*files, *image] if before else [*image, *files]) == ([("a/1.jpg", label)], [])


def test_one_label_belongs_to_all_images_of_a_sample_but_those_with_their_own():
    files = ["1.left.jpg", "1.left.txt", "1.right.jpg", "1.png", "1.cls", "2.JPG", "2.TXT"]
    contents = {"1.left.txt": b"left", "1.cls": b"both", "2.TXT": b"two"}
    found, skipped = read([(name, contents.get(name, JPEG)) for name in files])
    assert found == [("1.left.jpg", "left"), ("1.right.jpg", "both"), ("1.png", "both"), ("2.JPG", "two")]
    assert skipped == []


def test_other_members_are_skipped_and_counted_by_kind():
    files = [
        ("a/1.jpg", JPEG),
        ("a/1.npy", b"array"),
        ("a/no extension", JPEG),
        ("a/empty", b""),
        ("a/empty.jpg", b""),
        ("inner.tar", archive([("1.jpg", JPEG)])),
        ("README.txt", b"several\nlines"),
        (".hidden.jpg", JPEG),
        ("__MACOSX/._1.jpg", JPEG),
        member("fifo.jpg", type=b"6"),
    ]
    found, skipped = read(files)
    assert found == [("a/1.jpg", None), ("a/no extension", None), ("a/empty.jpg", None)]
    assert sorted(skipped) == [
        ("hidden", ".hidden.jpg"),
        ("label", "README.txt"),
        ("not-image", "a/1.npy"),
        ("not-image", "a/empty"),
        ("not-image", "inner.tar"),
        ("special", "fifo.jpg"),
        ("system", "__MACOSX"),
    ]
    assert [path for path, _ in read(files, hidden=True)[0]][-2:] == [".hidden.jpg", "__MACOSX/._1.jpg"]


@pytest.mark.parametrize("order", [("1.jpg", "2.jpg", "1.cls", "2.cls"), ("1.cls", "2.cls", "1.jpg", "2.jpg")])
def test_label_apart_from_its_image_is_an_error(order):
    with pytest.raises(DatasetError, match=r"the label 1.cls is not next to its image 1.jpg at byte .* --sort=name"):
        read([(name, JPEG if name.endswith("jpg") else b"3") for name in order])


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("1.txt", b"word " * 500, "the label 1.txt has 2,500 bytes, several lines, or a NUL"),
        ("1.cls", b"a\nb", "the label 1.cls has 3 bytes, several lines, or a NUL"),
        ("1.cls", b"a\0b", "the label 1.cls has 3 bytes, several lines, or a NUL"),
        ("1.json", rb'{"label": "a\u0000b"}', r"the label a\\x00b of 1.json"),
        ("1.json", b"{", "1.json is not JSON"),
        ("1.json", b"\xff", "1.json is not JSON"),
        ("1.json", b"[" * 100_000, "1.json is not JSON"),
        ("1.json", b'{"label": 1.5}', r"the label 1\.5 of 1.json"),
        ("1.json", b'{"label": true}', "the label True of 1.json"),
        ("1.json", b'{"label": [1]}', r"the label \[1\] of 1.json"),
        ("1.json", b'{"label": false}', "the label False of 1.json"),
        ("1.json", rb'{"label": "\ud800"}', r"the label \\ud800 of 1.json"),
        ("1.json", rb'{"label": ["a", "\udfff"]}', r"the label \['a', '\\udfff'\] of 1.json"),
        ("1.json", json.dumps({"label": "x" * 2**20}).encode(), "1.json has more than 1,048,576 bytes"),
    ],
)
def test_label_that_cannot_be_used_is_an_error_with_its_place(name, content, problem):
    with pytest.raises(DatasetError, match=rf"x\.tar: at byte [\d,]+: {problem}"):
        read([("1.jpg", JPEG), (name, content)])


def test_names_of_dots_alone_have_labels():
    files = [("a/.", JPEG), ("a/..cls", b"3"), ("a/...", JPEG), ("a/...txt", b"4")]
    assert read(files, hidden=True)[0] == [
        ("a/.", "3"),
        ("a/...", "4"),
    ]


def test_label_twice_in_a_sample_is_an_error():
    with pytest.raises(DatasetError, match=r"the label 1.cls is also at byte 1,536"):
        read([("1.jpg", JPEG), ("1.cls", b"3"), ("1.cls", b"4")])


def test_sample_of_many_images_is_read_in_bounded_memory(monkeypatch):
    monkeypatch.setattr(samples, "MAX_SAMPLE", 8)
    names = [f"IMG.{number:03d}" for number in range(50)]  # all have the key IMG
    files = [
        (f"{name}.{extension}", JPEG if extension == "jpg" else name.encode())
        for name in names
        for extension in ("jpg", "txt")
    ]
    assert read(files) == ([(f"{name}.jpg", name) for name in names], [])
    images = [(f"{name}.jpg", JPEG) for name in names]
    assert read([("IMG.cls", b"7"), *images])[0] == [(f"{name}.jpg", "7") for name in names]
    with pytest.raises(DatasetError, match=r"the label IMG\.cls follows more than"):
        read([*images, ("IMG.cls", b"7")])
