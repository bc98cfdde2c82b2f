"""Entries as tables, in stored lists, and in the digest of a list."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fruits.images.sources.entries import ImageEntry, Label, entry_table, entry_tables, table_entries
from fruits.plan.pages import write_list
from fruits.storage.folder import Folder
from tests.plans import stored_list

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=4)
labels = st.one_of(st.just(""), texts)
label_lists = st.lists(texts, max_size=3).map(tuple)


def entries_of(own_labels: st.SearchStrategy[Label]) -> st.SearchStrategy[list[ImageEntry]]:
    entry = st.builds(
        ImageEntry, texts.filter(bool), st.integers(-1, 2**40), texts, own_labels, texts, st.integers(0, 2**40)
    )
    return st.lists(entry, min_size=1, max_size=5)


@given(st.one_of(entries_of(labels), entries_of(label_lists)))
def test_a_table_with_labels_and_places_gives_the_entries_back(entries: list[ImageEntry]) -> None:
    assert list(table_entries(entry_table(entries, labelled=True, placed=True))) == entries


@given(entries_of(st.none()))
def test_a_table_without_labels_and_places_gives_the_other_values_back(entries: list[ImageEntry]) -> None:
    assert list(table_entries(entry_table(entries))) == [ImageEntry(*entry[:3]) for entry in entries]


@given(st.one_of(entries_of(labels), entries_of(label_lists)), st.data())
def test_any_change_changes_the_digest_of_a_list(entries: list[ImageEntry], data: st.DataObject) -> None:
    def digest(some: list[ImageEntry]) -> str:
        return write_list(entry_tables(some, labelled=True, placed=True)).digest

    place = data.draw(st.integers(0, len(entries) - 1))
    entry = entries[place]
    label: Label = (*entry.own_label, "x") if isinstance(entry.own_label, tuple) else f"{entry.own_label}x"
    for changed in (
        entry._replace(own_label=label),
        entry._replace(file=entry.file + "x"),
        entry._replace(position=entry.position + 1),
        entry._replace(path=entry.path + "x"),
    ):
        assert digest([*entries[:place], changed, *entries[place + 1 :]]) != digest(entries)


def test_labels_cut_at_other_places_change_the_digest() -> None:
    lists = [("a", "b"), ("ab",), ("a\x01b",), (), ("",), ("", "")]
    entries = [[ImageEntry("p", 1, "v", label)] for label in lists] + [[ImageEntry("p", 1, "v", "ab")]]
    digests = {write_list(entry_tables(each, labelled=True)).digest for each in entries}
    digests |= {write_list(entry_tables([ImageEntry("p", 1, "v")])).digest}
    assert len(digests) == len(entries) + 1


def test_lists_of_folders_have_the_digest_and_columns_of_earlier_versions(tmp_path: Path) -> None:
    entries = [ImageEntry("a/1.jpg", 7, "12.5"), ImageEntry("b/\udcff.jpg", -1)]
    expected = hashlib.sha256(b"a/1.jpg\0007\00012.5\0b/\xff.jpg\0-1\0\0").hexdigest()
    assert write_list(entry_tables(entries), Folder(str(tmp_path))).digest == expected
    assert pq.read_schema(tmp_path / "part-00000.parquet").names == ["path", "size", "version"]


@pytest.mark.parametrize("label", ["kind", "", ("a", "b"), ()])
def test_pages_store_labels_and_places(tmp_path: Path, label: Label) -> None:
    entries = [ImageEntry(f"{number:04d}", 1, "", label, "shard.tar", 512 * number) for number in range(2000)]
    folder = Folder(str(tmp_path))
    write_list(entry_tables(entries, labelled=True, placed=True), folder)
    assert stored_list(folder, 1000, 900) == entries[1000:1900]


def test_the_label_is_the_folder_unless_the_source_gives_one() -> None:
    assert [ImageEntry("a/b/1.jpg", 1, "", own).label for own in (None, "c", "", ("c", "d"), ())] == [
        "b",
        "c",
        None,
        ("c", "d"),
        (),
    ]
    assert ImageEntry("1.jpg", 1).label is None
    assert [ImageEntry(path, 1).label for path in ("./1.jpg", "a/../1.jpg", "./a//1.jpg")] == [None, None, "a"]
