"""Files that listings skip, links to folders, and stratified samples."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fruits.errors import DatasetError
from fruits.images.skipped import skipped_by_name
from fruits.images.sources.entries import ImageEntry
from fruits.images.sources.kinds import open_source
from fruits.images.sources.listing import Listing
from fruits.images.sources.options import SourceOptions
from fruits.images.stratified import stratified
from tests import trees


def paths(address: Path, **options: bool) -> list[str]:
    return [entry.path for entry in Listing(open_source(str(address), SourceOptions(**options)))]  # type: ignore


# -- skipped files


@pytest.mark.parametrize(
    ("path", "skipped"),
    [
        (".hidden.jpg", ("hidden", ".hidden.jpg")),
        ("a/.b/c/.d.jpg", ("hidden", "a/.b")),
        ("a/__MACOSX/._1.jpg", ("system", "a/__MACOSX")),
        ("a/@eadir/1.jpg", ("system", "a/@eadir")),
        ("a/@eaDir/", ("system", "a/@eaDir")),
        ("..a/1.jpg", ("hidden", "..a")),
        ("../1.jpg", None),  # a key of S3, which becomes a reject
        ("./1.jpg", None),
        ("a/...jpg", ("hidden", "a/...jpg")),
        ("a.b/c.jpg", None),
        ("__MACOSX", None),
        ("my__MACOSX/1.jpg", None),
        ("__MACOSX2/1.jpg", None),
        ("@eaDir.jpg", None),
    ],
)
def test_names_that_are_skipped(path: str, skipped: tuple[str, str] | None) -> None:
    assert skipped_by_name(path) == skipped


def test_hidden_and_system_folders_can_be_included(tmp_path: Path) -> None:
    trees.write(tmp_path, trees.tree())
    everything = [
        path for path, data in trees.tree().items() if data == trees.PICTURE or path.endswith((".jpg", ".png"))
    ]
    listing = Listing(open_source(str(tmp_path), SourceOptions(include_hidden=True)))
    assert [entry.path for entry in listing] == sorted(everything)
    assert set(listing.skipped) == {"not-image"}


def test_skipped_folder_that_cannot_be_listed_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a disk of its own, lost+found is readable by root only."""
    trees.write(tmp_path, {"a/1.jpg": trees.PICTURE, "lost+found/1.jpg": trees.PICTURE})
    scandir = os.scandir

    def refuse(path: str) -> object:
        if "lost+found" in str(path):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert paths(tmp_path) == ["a/1.jpg"]
    with pytest.raises(DatasetError, match=r"lost\+found cannot be listed"):
        paths(tmp_path, include_hidden=True)


def test_image_folder_may_itself_be_hidden(tmp_path: Path) -> None:
    trees.write(tmp_path / ".data" / "__MACOSX", {"a/1.jpg": trees.PICTURE})
    assert paths(tmp_path / ".data" / "__MACOSX") == ["a/1.jpg"]


# -- links to folders


@pytest.fixture
def linked(tmp_path: Path) -> Path:
    """Return a folder with one real label, and others behind links, of which two do not end."""
    trees.write(tmp_path / "elsewhere", {"Banana/1.jpg": trees.PICTURE, "Banana/.git/1.jpg": trees.PICTURE})
    trees.write(tmp_path / "images", {"Apple/1.jpg": trees.PICTURE})
    for name, target in {
        "Banana": "../elsewhere/Banana",
        "Copy": "Apple",
        "Apple/again": "..",
        "Apple/above": "../..",
        "Apple/inside.jpg": "1.jpg",
        "Apple/outside.jpg": "../../elsewhere/Banana/1.jpg",
    }.items():
        (tmp_path / "images" / name).symlink_to(target)
    return tmp_path / "images"


def test_links_to_folders_are_skipped_counted_and_reported(linked: Path) -> None:
    listing = Listing(open_source(str(linked)))
    assert [entry.path for entry in listing] == ["Apple/1.jpg", "Apple/inside.jpg"]
    assert (listing.labels, listing.skipped) == (1, {"link": 5})
    (line,) = listing.describe_skipped()
    assert line == "links to folders, and to files outside: 5, such as Apple/above; --follow-links includes them"


def test_links_to_folders_are_followed_on_request(linked: Path, tmp_path: Path) -> None:
    listing = Listing(open_source(str(linked), SourceOptions(follow_links=True)))
    followed = ["Apple/1.jpg", "Apple/inside.jpg", "Apple/outside.jpg", "Banana/1.jpg", "Copy/1.jpg"]
    followed += ["Copy/inside.jpg", "Copy/outside.jpg"]
    assert [entry.path for entry in listing] == followed
    assert (listing.labels, listing.skipped) == (3, {"loop": 4, "hidden": 1})
    for link in ("again", "above"):
        (linked / "Apple" / link).unlink()
    subprocess.run(["cp", "-rL", linked, tmp_path / "copy"], check=True)
    assert [entry[:2] for entry in listing] == [entry[:2] for entry in Listing(open_source(str(tmp_path / "copy")))]


def test_folders_that_link_to_each_other_end(tmp_path: Path) -> None:
    trees.write(tmp_path, {"a/1.jpg": trees.PICTURE, "b/1.jpg": trees.PICTURE})
    (tmp_path / "a" / "x").symlink_to("../b")
    (tmp_path / "b" / "y").symlink_to("../a")
    assert paths(tmp_path, follow_links=True) == ["a/1.jpg", "a/x/1.jpg", "b/1.jpg", "b/y/1.jpg"]


# -- samples

Counts = dict[str, int]


def images(counts: Counts) -> list[ImageEntry]:
    return sorted(
        ImageEntry(f"{label}/{number:05d}.jpg", 1) for label, count in counts.items() for number in range(count)
    )


def labels(sample: list[ImageEntry]) -> Counts:
    return dict(Counter(str(image.label) for image in sample))


COUNTS = st.dictionaries(st.text("abc", min_size=1, max_size=3), st.integers(1, 60), min_size=1, max_size=8)


@given(COUNTS, st.integers(1, 200), st.integers(0, 3))
def test_sample_has_every_label_in_proportion(counts: Counts, count: int, seed: int) -> None:
    listed = images(counts)
    sample = stratified(lambda: listed, count, seed)
    assert sample == sorted(set(sample))
    assert set(sample) <= set(listed)
    total = sum(counts.values())
    assert len(sample) == min(count, total)
    taken = labels(sample)
    if count >= len(counts):
        assert set(taken) == set(counts)
    # Webster's method: no label has an image more than its share while another has one less, beyond rounding.
    divisor = (
        max((number - 0.5) / counts[label] for label, number in taken.items() if number > 1)
        if any(number > 1 for number in taken.values())
        else 0
    )
    assert all(
        (taken.get(label, 0) + 0.5) / counts[label] >= divisor
        for label in counts
        if taken.get(label, 0) < counts[label]
    )


@given(COUNTS, st.integers(1, 100))
def test_larger_sample_contains_the_smaller_one(counts: Counts, count: int) -> None:
    listed = images(counts)
    assert set(stratified(lambda: listed, count, 0)) <= set(stratified(lambda: listed, count + 7, 0))


def test_equal_labels_have_equal_shares_and_unequal_ones_their_proportion() -> None:
    assert labels(stratified(lambda: images(dict.fromkeys("abcdefgh", 1000)), 80, 0)) == dict.fromkeys("abcdefgh", 10)
    sample = stratified(lambda: images({"common": 900, "seldom": 90, "rare": 10}), 100, 0)
    assert labels(sample) == {"common": 90, "seldom": 9, "rare": 1}
    assert labels(stratified(lambda: images({"common": 990, "rare": 1}), 10, 0)) == {"common": 9, "rare": 1}


def test_sample_is_the_same_in_every_process_and_differs_by_seed(tmp_path: Path) -> None:
    trees.write(
        tmp_path, {image.path: trees.PICTURE for image in images({"a": 30, "b": 10})} | {"c.jpg": trees.PICTURE}
    )
    samples = []
    for hash_seed, seed in (("1", 0), ("2", 0), ("1", 5)):
        code = (
            "import json, sys; from fruits.images.sources.kinds import open_source; "
            "from fruits.images.sources.listing import Listing; source = open_source(sys.argv[1]); "
            "print(json.dumps([each.path for each in Listing(source, sample=9, seed=int(sys.argv[2]))]))"
        )
        environ = {**os.environ, "PYTHONHASHSEED": hash_seed}
        samples.append(
            subprocess.run(
                [sys.executable, "-c", code, str(tmp_path), str(seed)], env=environ, capture_output=True, check=True
            ).stdout
        )
    assert samples[0] == samples[1] != samples[2]
    listing = Listing(open_source(str(tmp_path)), sample=9)
    sample = list(listing)
    assert [image.path for image in sample] == json.loads(samples[0])
    assert "c.jpg" in [image.path for image in sample]
    assert labels(sample) == {"a": 6, "b": 2, "None": 1}
    assert listing.labels == 2
    unlike_the_first = [image.path for image in Listing(open_source(str(tmp_path)), limit=9)]
    assert {path.partition("/")[0] for path in unlike_the_first} == {"a"}


def test_empty_names_in_a_path_as_keys_of_s3_can_have_stay_below_the_folder(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.jpg").write_bytes(b"one")
    (tmp_path.parent / "outside.jpg").write_bytes(b"two")
    source = open_source(str(tmp_path))
    entries = [ImageEntry(path, 3) for path in ("/a/1.jpg", "a//1.jpg", "a/../../outside.jpg")]
    *inside, outside = source.read(entries)
    assert inside == [b"one", b"one"]
    assert str(outside) == "unreadable: its path leads out of the image folder"


def test_images_of_other_formats_are_counted_by_themselves(tmp_path: Path) -> None:
    for name in ("IMG_1.HEIC", "a.avif", "README.md", "1.jpg"):
        (tmp_path / name).write_bytes(b"\0\0\0 ftypheic")
    listing = Listing(open_source(str(tmp_path)))
    assert [entry.path for entry in listing] == ["1.jpg"]
    assert listing.skipped == {"other-format": 2, "not-image": 1}
    assert "images of other formats, which JPEG or PNG can replace: 2, such as IMG_1.HEIC" in listing.describe_skipped()
