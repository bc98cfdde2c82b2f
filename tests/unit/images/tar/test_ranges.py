"""Reading of images inside large files."""

from __future__ import annotations

import errno
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fruits.images.tar import ranges
from fruits.images.tar.ranges import read_places
from fruits.storage.folder import Folder
from fruits.storage.prefetch import ChangedFileError, Range


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Return a folder of two files of random bytes, and their contents and versions."""
    folder = Folder.at(tmp_path_factory.mktemp("shards"))
    contents = {name: random.Random(name).randbytes(300_000) for name in ("a.tar", "b.tar")}
    for name, data in contents.items():
        folder.write(name, data)
    return folder, contents, {name: folder.info(name).version for name in contents}


@settings(max_examples=60, deadline=None)
@given(
    spots=st.lists(
        st.tuples(st.sampled_from(["a.tar", "b.tar"]), st.integers(0, 290_000), st.integers(0, 9_000)), max_size=60
    ),
    chunk=st.sampled_from([1, 10_000, 2**24]),
    gap=st.sampled_from([0, 100, 2**16]),
    longest=st.sampled_from([1, 20_000, 2**23]),
)
def test_every_image_has_its_bytes_in_order(shards, spots, chunk, gap, longest):
    folder, contents, versions = shards
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("CHUNK", chunk), ("GAP", gap), ("LONGEST", longest)):
            patch.setattr(ranges, name, value)
        found = list(read_places(folder, [Range(*spot, versions[spot[0]]) for spot in spots]))
    assert found == [contents[name][start : start + size] for name, start, size in spots]


class Recorded:
    """A folder that records its requests, and answers with zeros."""

    def __init__(self) -> None:
        self.requests: list[Range] = []

    def fetch_ranges(self, places, *, ahead):
        for place in places:
            self.requests.append(place)
            yield bytes(place.size)


def test_neighbours_are_one_request_in_whatever_order_they_are_wanted():
    places = [Range("a", 6000 * number, 5000, "v") for number in range(1000)]
    random.Random(0).shuffle(places)
    folder = Recorded()
    assert len(list(read_places(folder, places))) == 1000
    assert folder.requests == [Range("a", 0, 999 * 6000 + 5000, "v")]


def test_large_and_distant_images_are_requests_of_their_own():
    folder = Recorded()
    places = [
        Range("a", 0, 5_000_000, ""),
        Range("a", 5_000_512, 5_000_000, ""),
        Range("a", 20_000_000, 10, ""),
        Range("b", 20_000_010, 10, ""),
    ]
    assert [len(each) for each in read_places(folder, places)] == [5_000_000, 5_000_000, 10, 10]
    assert [each.start for each in folder.requests] == [0, 5_000_512, 20_000_000, 20_000_010]


def test_images_are_consumed_no_further_than_needed():
    folder = Recorded()
    taken = []

    def places():
        for number in range(100):
            taken.append(number)
            yield Range("a", number * 10**7, 10**7, "")

    next(read_places(folder, places()))
    assert len(taken) <= 3


def test_only_empty_images_need_no_request():
    folder = Recorded()
    assert list(read_places(folder, [Range("a", 5, 0, "")] * 3)) == [b""] * 3
    assert folder.requests == []


def test_error_of_a_request_is_that_of_its_images_alone(shards):
    folder, contents, versions = shards
    places = [
        Range("a.tar", 0, 10, versions["a.tar"]),
        Range("a.tar", 10, 10, "another version"),
        Range("missing.tar", 0, 10, ""),
        Range("b.tar", 299_995, 10, ""),
        Range("b.tar", 0, 500_000_000, ""),
        Range("b.tar", 5, 0, ""),
        Range("b.tar", 5, 10, versions["b.tar"]),
    ]
    first, changed, missing, short, huge, empty, last = read_places(folder, places)
    assert (first, last, empty) == (contents["a.tar"][:10], contents["b.tar"][5:15], b"")
    assert isinstance(changed, ChangedFileError)
    assert isinstance(missing, FileNotFoundError)
    assert isinstance(short, ChangedFileError)
    assert isinstance(huge, OSError)
    assert huge.errno == errno.EFBIG
