import os

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fruits.errors import DatasetError
from fruits.images.sources.entries import ImageEntry, entry_tables
from fruits.images.sources.kinds import open_source
from fruits.images.sources.listing import Listing
from fruits.images.sources.options import SourceOptions
from fruits.plan.pages import write_list
from fruits.storage.folder import Folder
from tests.plans import through_storage

JPEG = b"\xff\xd8\xff\xe0 the rest does not matter to a listing"
ODD_NAMES = [
    "a b.jpg",
    "it's.jpg",
    '"quoted".jpg',
    "#1.jpg",
    "50%.jpg",
    "%41.jpg",
    "?x=1&y.jpg",
    "[a-z]*.jpg",
    "::.jpg",
]
ODD_NAMES += [
    "pêche 🍑.jpg",
    "new\nline.jpg",
    "tab\t.jpg",
    "back\\slash.jpg",
    "{a,b}.jpg",
    "~.jpg",
    " .jpg",
    "UPPER.JPG",
]


def write(root, *names, data=JPEG):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def test_paths_come_in_code_point_order_with_their_labels_and_sizes(tmp_path):
    write(tmp_path, "b/1.jpg", "a/2.jpg", "a/10.jpg", "a.jpg", "a-b/1.jpg", "a/deep/er/x.png", "Z/1.jpg")
    entries = list(Listing(open_source(str(tmp_path))))
    paths = [entry.path for entry in entries]
    assert paths == sorted(paths)
    assert len(paths) == 7
    labels = {entry.path: entry.label for entry in entries}
    assert labels["a.jpg"] is None
    assert labels["a/10.jpg"] == "a"
    assert labels["a/deep/er/x.png"] == "er"
    assert {entry.size for entry in entries} == {len(JPEG)}


@pytest.mark.parametrize("folder", ["plain", "a b", "100%", "#7", "it's", "[x]", "é", "new\nline"])
def test_names_with_odd_characters_are_listed_and_can_be_read(tmp_path, folder):
    write(tmp_path / folder, *(f"{folder}/{name}" for name in ODD_NAMES))
    entries = list(Listing(open_source(str(tmp_path / folder))))
    assert sorted(entry.path for entry in entries) == sorted(f"{folder}/{name}" for name in ODD_NAMES)
    assert {entry.label for entry in entries} == {folder}
    again = through_storage(entries, Folder(str(tmp_path / "plan")))
    assert again == entries
    source = Folder.at(str(tmp_path / folder))
    assert all(source.read(entry.path) == JPEG for entry in again)


def test_name_that_is_not_utf_8_is_preserved_by_the_plan(tmp_path):
    name = os.fsdecode(b"label/\xff\xfe.jpg")
    write(tmp_path / "images", name)
    entries = list(Listing(open_source(str(tmp_path / "images"))))
    (again,) = through_storage(entries, Folder(str(tmp_path / "plan")))
    assert (tmp_path / "images" / again.path).read_bytes() == JPEG


@pytest.mark.parametrize(
    "head",
    [
        JPEG,
        b"\x89PNG\r\n\x1a\n" + bytes(24),
        b"RIFF\x10\x00\x00\x00WEBPVP8 " + bytes(16),
        b"GIF89a" + bytes(26),
        b"II*\x00" + bytes(28),
        b"MM\x00*" + bytes(28),
        b"BM"
        + (70).to_bytes(4, "little")
        + bytes(4)
        + (54).to_bytes(4, "little")
        + (40).to_bytes(4, "little")
        + bytes(60),
    ],
)
def test_an_image_without_an_extension_is_told_by_its_content(tmp_path, head):
    write(tmp_path, "label/picture", "label/picture.dat", data=head)
    assert [entry.path for entry in Listing(open_source(str(tmp_path)))] == ["label/picture", "label/picture.dat"]


def test_files_that_are_no_images_are_passed_over_and_counted(tmp_path):
    write(tmp_path, "label/1.jpg")
    write(tmp_path, "README.md", "label/.DS_Store", "label/notes", data=b"words")
    (tmp_path / "label" / "empty").touch()
    os.mkfifo(tmp_path / "label" / "fifo.jpg")
    listing = Listing(open_source(str(tmp_path)))
    assert [entry.path for entry in listing] == ["label/1.jpg"]
    assert listing.skipped == {"not-image": 3, "hidden": 1, "special": 1}


def test_links_to_files_are_images_where_they_are_followed_and_links_to_folders_are_not(tmp_path):
    write(tmp_path, "elsewhere/1.jpg")
    (tmp_path / "images" / "label").mkdir(parents=True)
    (tmp_path / "images" / "label" / "link.jpg").symlink_to(tmp_path / "elsewhere" / "1.jpg")
    (tmp_path / "images" / "label" / "dangling.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (tmp_path / "images" / "label" / "up").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "images" / "label" / "other").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    listing = Listing(open_source(str(tmp_path / "images"), SourceOptions(follow_links=True)))
    assert [entry.path for entry in listing] == [
        "label/dangling.jpg",
        "label/link.jpg",
        "label/other/1.jpg",
    ]
    assert list(listing)[1].size == len(JPEG)
    assert listing.skipped == {"loop": 1}
    assert listing.labels == 2
    listing = Listing(open_source(str(tmp_path / "images")))
    assert [entry.path for entry in listing] == ["label/dangling.jpg"]
    assert listing.skipped == {"link": 3}
    assert listing.describe_skipped() == [
        "links to folders, and to files outside: 3, such as label/link.jpg; --follow-links includes them"
    ]


def test_a_limit_takes_the_first(tmp_path):
    write(tmp_path, *(f"label/{number}.jpg" for number in range(9)))
    assert [entry.path for entry in Listing(open_source(str(tmp_path)), limit=2)] == ["label/0.jpg", "label/1.jpg"]


def test_another_file_system_lists_the_same(tmp_path):
    names = ["b/1.jpg", "a/2.jpg", "a.jpg", "a-b/1.jpg", "a/deep/x.png"]
    write(tmp_path, *names)
    memory = fsspec.filesystem("memory")
    for name in names:
        memory.pipe_file(f"/listing/{name}", JPEG)
    expected = [entry[:2] for entry in Listing(open_source(str(tmp_path)))]
    assert [entry[:2] for entry in Listing(open_source("memory://listing"))] == expected


def test_the_version_of_a_link_is_that_of_what_it_leads_to(tmp_path):
    write(tmp_path, "elsewhere/1.jpg")
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "1.jpg").symlink_to(tmp_path / "elsewhere" / "1.jpg")
    os.utime(tmp_path / "elsewhere" / "1.jpg", (7, 7))
    source = open_source(str(tmp_path / "images"), SourceOptions(follow_links=True))
    (entry,) = Listing(source)
    assert entry.version == "7.0"
    assert list(source.read([entry])) == [JPEG]


def test_what_cannot_be_listed_is_said(tmp_path):
    with pytest.raises(DatasetError, match="no such folder"):
        list(Listing(open_source(str(tmp_path / "missing"))))
    with pytest.raises(DatasetError, match="File name too long"):
        list(Listing(open_source("/" + "x" * 300)))
    write(tmp_path, "1.jpg")
    with pytest.raises(DatasetError, match="not a folder"):
        list(Listing(open_source(str(tmp_path / "1.jpg"))))
    write(tmp_path, "1.zip")
    with pytest.raises(DatasetError, match=r"or zip://::.*/1\.zip for the images in an archive"):
        list(Listing(open_source(str(tmp_path / "1.zip"))))


names = st.one_of(
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1),
    st.binary(min_size=1).filter(lambda name: b"\0" not in name).map(os.fsdecode),
)
entries = st.lists(
    st.builds(
        ImageEntry,
        names,
        st.integers(0, 2**40),
        st.sampled_from(["", "1732492800.25", "9a0364b9e99bb480dd25e1f0284c8555"]),
    ),
    unique_by=lambda entry: entry.path,
    min_size=1,
    max_size=30,
)


@given(entries, st.data())
def test_any_change_of_the_listing_changes_the_digest(entries, data):
    place = data.draw(st.integers(0, len(entries) - 1))
    path, size, version = entries[place][:3]
    others = (
        ImageEntry(path, size + 1, version),
        ImageEntry(path + "x", size, version),
        ImageEntry(path, size, version + "0"),
    )
    digest = write_list(entry_tables(entries)).digest
    for changed in ([], *([other] for other in others), [entries[place]] * 2):
        listed = entries[:place] + changed + entries[place + 1 :]
        assert write_list(entry_tables(listed)).digest != digest
