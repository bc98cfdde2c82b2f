"""Partitions: their sizes, their file, and those of an updated list."""

import dataclasses
from itertools import zip_longest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fruits.errors import DamageError
from fruits.images.sources.entries import ImageEntry, entry_tables
from fruits.plan.changes import describe_changes, updated_partitions
from fruits.plan.pages import ImageList, write_list
from fruits.plan.partitions import (
    MOST_BYTES,
    Partition,
    Plan,
    Stored,
    bounded_partitions,
    default_size,
    even_partitions,
)
from fruits.text import bytes_name

PATHS = [f"{label}/{number}.jpg" for label in "abc" for number in range(5)]
LISTS = st.dictionaries(st.sampled_from(PATHS), st.sampled_from(["1", "2", ""]), min_size=1)


def listing(versions):
    return [ImageEntry(path, 1, versions[path]) for path in sorted(versions)]


def plan_of(entries, size):
    return Plan(write_list(entry_tables(entries)), size, even_partitions(len(entries), size), (b"0" * 32,))


@pytest.mark.parametrize(
    ("images", "workers", "partitions"),
    [(1000, 2, 6), (2560, 2, 6), (5120, 2, 6), (20_000, 2, 20), (40, 2, 3), (1, 8, 1), (10**8, 500, 97_944)],
)
def test_every_worker_gets_as_many_partitions(images, workers, partitions):
    size = default_size(images, workers)
    assert 1 <= size <= 1024
    assert len(range(0, images, size)) == partitions


@given(st.integers(1, 10**6), st.integers(1, 300))
def test_default_partitions_are_balanced(images, workers):
    size = default_size(images, workers)
    assert 16 <= size <= 1024
    count = len(range(0, images, size))
    if size > 16:
        assert count >= 2 * workers
        rounds = -(-count // workers)
        assert rounds * workers * size < images + workers * rounds * 1.01 + size


def test_partitions_of_photos_are_smaller():
    photo = 5 * 10**6
    size = default_size(100_000, 2, 100_000 * photo)
    assert size * photo == pytest.approx(MOST_BYTES / 2, rel=0.01)
    assert default_size(100_000, 2, 100_000 * 5_000) == default_size(100_000, 2) == 1021
    assert default_size(12, 2, 12 * 400_000_000) == 16  # then divided by bounded_partitions


@given(st.lists(st.integers(-1, 500), max_size=60), st.integers(1, 9))
def test_no_partition_has_more_images_or_bytes_than_allowed(sizes, most):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fruits.plan.partitions.MOST_BYTES", 400)
        partitions = bounded_partitions(iter(sizes), most)
    assert [each.index for each in partitions] == list(range(len(partitions)))
    assert [place for each in partitions for place in range(each.start, each.start + each.images)] == list(
        range(len(sizes))
    )
    for each, following in zip_longest(partitions, partitions[1:]):
        own = [max(size, 0) for size in sizes[each.start : each.start + each.images]]
        assert 1 <= len(own) <= most
        assert sum(own) <= 400 or len(own) == 1
        if following is not None:  # no smaller than necessary
            assert len(own) == most or sum(own) + sizes[following.start] > 400


@given(st.integers(0, 100), st.integers(1, 30))
def test_partitions_of_small_images_are_even(images, size):
    assert bounded_partitions([4_000] * images, size) == even_partitions(images, size)


def test_a_plan_is_read_back():
    partitions = (
        Partition(4, 0, 3, "0123456789ab"),
        Partition(1, 3, 2, "", "0123456789ab", Stored(1, 3, 4, "ba9876543210")),
        Partition(9, 5, 0, stored=Stored(2, 7, 1, "ba9876543210")),
    )
    plan = Plan(ImageList(5, "digest"), 3, partitions, (b"1" * 32,))
    assert Plan.decode(plan.encode()) == plan


@pytest.mark.parametrize(
    "partitions",
    [
        (Partition(0, 0, 3),),
        (Partition(0, 0, 3), Partition(0, 3, 2)),
        (Partition(0, 0, 3), Partition(1, 4, 2)),
        (Partition(0, 0, 6), Partition(1, 6, -1)),
        (Partition(-1, 0, 5),),
    ],
)
def test_contradicting_partitions_are_damage(partitions):
    with pytest.raises(DamageError, match="contradict"):
        Plan.decode(Plan(ImageList(5, "digest"), 3, partitions, (b"1" * 32,)).encode())


def test_a_plan_with_another_number_of_pages_is_damage():
    with pytest.raises(DamageError, match="contradict"):
        Plan.decode(Plan(ImageList(5, "digest"), 5, (Partition(0, 0, 5),), ()).encode())


@pytest.mark.parametrize("data", [b"", b"PAR1", b"{}"])
def test_a_corrupt_plan_is_damage(data):
    with pytest.raises(DamageError, match="plan cannot be read"):
        Plan.decode(data)


@given(LISTS, LISTS, st.integers(1, 6), st.data())
def test_an_updated_plan_keeps_what_has_not_changed(before, after, size, data):
    old, new = listing(before), listing(after)
    plan = plan_of(old, size)
    finished = data.draw(st.sets(st.sampled_from(plan.partitions)))
    retried = {each.index for each in data.draw(st.sets(st.sampled_from(plan.partitions)))}
    partitions, changes = updated_partitions(plan, "first", old, new, finished.__contains__, retried)
    assert all(each.images <= max(1.5 * size + 0.5, size) for each in partitions)
    updated = dataclasses.replace(plan, list=write_list(entry_tables(new)), partitions=partitions)
    assert Plan.decode(updated.encode()) == updated  # contiguous, and with different numbers
    same = {path for path in before.keys() & after.keys() if before[path] == after[path] != ""}
    assert changes.added == len(after.keys() - before.keys())
    assert changes.deleted == len(before.keys() - after.keys())
    assert changes.changed == len(before.keys() & after.keys()) - len(same)
    covered = []
    for each in partitions:
        if each.owner:  # a partition that stays
            (base,) = [other for other in plan.partitions if other.index == each.index]
            assert base in finished
            assert base.index not in retried
            entries = new[each.start : each.start + each.images]
            assert entries == old[base.start : base.start + base.images]
            assert all(entry.version for entry in entries)
            covered += entries
        elif each.stored is not None:
            covered += old[each.stored.start : each.stored.start + each.stored.images]
    kept = [
        entry for base in plan.partitions if base in finished for entry in old[base.start : base.start + base.images]
    ]
    assert covered == kept  # every stored row is used again or dropped, exactly once


def test_a_partition_that_grows_is_split():
    old = [ImageEntry(f"b/{number}.jpg", 1, "1") for number in range(4)]
    new = [ImageEntry(f"a/{number:02d}.jpg", 1, "1") for number in range(10)] + old
    partitions, _ = updated_partitions(plan_of(old, 4), "first", old, new, lambda partition: True)
    assert [(each.index, each.images) for each in partitions] == [(0, 6), (1, 6), (2, 2)]
    assert sum(each.images for each in partitions) == 14


def test_added_images_of_more_than_a_gibibyte_are_several_partitions():
    old = listing({f"a/{number}.jpg": "1" for number in range(4)})
    new = [ImageEntry(f"b/{number:02d}.jpg", 400_000_000, "1") for number in range(10)]
    partitions, _ = updated_partitions(plan_of(old, 100), "first", old, old + new, lambda partition: True)
    assert [each.images for each in partitions] == [7, 3, 3, 1]
    unchanged, _ = updated_partitions(plan_of(old + new, 100), "first", old + new, old + new, lambda partition: True)
    assert [(each.images, each.owner) for each in unchanged] == [(14, "first")]


def test_a_partition_stays_when_another_one_fills_up_before_it():
    old = [ImageEntry(f"b/{number}.jpg", 1, "1") for number in range(4)]
    new = [ImageEntry(f"a/{number}.jpg", 1, "1") for number in range(6)] + old
    partitions, _ = updated_partitions(plan_of(old, 4), "first", old, new, lambda partition: True)
    assert partitions == (Partition(1, 0, 6, stored=Stored(0, 0, 0, "first")), Partition(0, 6, 4, "first"))


def test_changes_are_described_with_examples():
    old, new = listing({"a/1.jpg": "1", "a/2.jpg": "1"}), listing({"a/2.jpg": "2", "b/1.jpg": "1"})
    assert describe_changes(old, new) == "1 replaced (a/2.jpg), 1 added (b/1.jpg), 1 removed (a/1.jpg)"


def test_lists_of_names_that_are_not_utf_8_are_compared_in_the_order_of_their_bytes() -> None:
    names = [b"a", b"\xf0\x9f\x8d\x91", b"\xfe", b"\xff"]
    old = [ImageEntry(bytes_name(name), 1, "1") for name in names]
    assert describe_changes(old, old[:2] + old[3:]) == f"1 removed ({bytes_name(names[2])})"
