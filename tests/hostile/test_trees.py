"""Hostile folder trees: loops, devices, FIFOs, odd names, and very many files."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from fruits.errors import DatasetError
from fruits.images.decode import ImageError
from fruits.images.sources.entries import ImageEntry, entry_tables
from fruits.images.sources.kinds import open_source
from fruits.images.sources.listing import Listing
from fruits.images.sources.options import SourceOptions
from fruits.images.sources.source import image_bytes
from fruits.jobs.tasks.featurize import FeaturizeSettings, featurize
from fruits.model.fingerprint import numeric_fingerprint
from fruits.plan.pages import write_list
from fruits.plan.partitions import even_partitions
from fruits.storage import local
from fruits.storage.commits import OwnedFolder
from fruits.storage.folder import Folder
from fruits.storage.prefetch import ChangedFileError
from tests.conformance.crashing import PixelNetwork
from tests.conftest import LONG
from tests.hostile import pictures
from tests.hostile.conftest import Fruits, watched
from tests.hostile.measure import run_module
from tests.plans import planned, through_storage

PICTURE = pictures.png(4, 4)
DEEP = 1_100
MANY = 200_000 if LONG else 10_000


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Return a folder with one image, to which the tests add files."""
    folder = tmp_path / "images"
    (folder / "label").mkdir(parents=True)
    (folder / "label" / "whole.png").write_bytes(PICTURE)
    return folder


def listed(folder: Path) -> list[str]:
    return [entry.path for entry in Listing(open_source(str(folder)))]


def contents(folder: Path) -> dict[str, bytes | OSError]:
    entries = list(Listing(open_source(str(folder))))
    found = open_source(str(folder)).read(entries)
    return {entry.path: data for entry, data in zip(entries, found, strict=True)}


@pytest.fixture
def deep(images: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Yield the folder with 1,100 nested folders added; remove them afterwards, which shutil cannot."""
    monkeypatch.chdir(images)
    for _ in range(DEEP):
        os.mkdir("d")
        os.chdir("d")
    yield images
    monkeypatch.chdir(images)
    for _ in range(DEEP - 1):
        os.chdir("d")
    for _ in range(DEEP - 1):
        os.rmdir("d")
        os.chdir("..")
    os.rmdir("d")


# -- loops and links


def test_circular_links_do_not_loop_the_listing(images: Path) -> None:
    (images / "label" / "again").symlink_to(images, target_is_directory=True)
    (images / "label" / "self").symlink_to("self")
    (images / "one.jpg").symlink_to("two.jpg")
    (images / "two.jpg").symlink_to("one.jpg")
    found = contents(images)
    assert found.pop("label/whole.png") == PICTURE
    for name, error in found.items():
        with pytest.raises(ImageError, match="unreadable: Too many levels of symbolic links"):
            image_bytes(error)
        assert name in ("label/self", "one.jpg", "two.jpg")


def test_link_to_an_outside_folder_is_not_followed(images: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.png").write_bytes(PICTURE)
    (images / "label" / "out").symlink_to(outside, target_is_directory=True)
    assert listed(images) == ["label/whole.png"]


def test_link_to_an_outside_file_is_not_followed_by_default(images: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(PICTURE)
    (images / "label" / "link.png").symlink_to(tmp_path / "secret.png")
    assert listed(images) == ["label/whole.png"]


@pytest.mark.parametrize("whole_folder", [False, True])
@pytest.mark.parametrize("follow", [False, True])
def test_a_link_that_replaced_a_listed_image_is_not_followed(tmp_path: Path, whole_folder: bool, follow: bool) -> None:
    for place, data in (("images/a/1.jpg", b"public."), ("images/b/2.jpg", b"public."), ("private/1.jpg", b"private")):
        (tmp_path / place).parent.mkdir(parents=True)
        (tmp_path / place).write_bytes(data)
        os.utime(tmp_path / place, (1, 1))  # whoever can write the folder can also choose size and time
    (tmp_path / "link").symlink_to("images")
    source = open_source(str(tmp_path / "link"), SourceOptions(follow_links=follow))
    entries = list(Listing(source))
    target, name = (tmp_path / "private", "a") if whole_folder else (tmp_path / "private/1.jpg", "a/1.jpg")
    (tmp_path / "images" / name).rename(tmp_path / "old")
    (tmp_path / "images" / name).symlink_to(target)
    first, second = source.read(entries)
    assert second == b"public."
    assert first == b"private" if follow else isinstance(first, ChangedFileError)


def test_outside_links_are_counted_in_a_message(fruits: Fruits, tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(PICTURE)
    (tmp_path / "linked" / "label").mkdir(parents=True)
    (tmp_path / "linked" / "label" / "link.png").symlink_to(tmp_path / "secret.png")
    message = "links to folders, and to files outside: 1, such as label/link.png; --follow-links includes them"
    assert message in fruits("fit", "linked", "--out", "o").err
    assert "1 usable image" in fruits("fit", "linked", "--out", "o", "--follow-links").err


def test_nested_links_to_the_same_folders_are_bounded(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "MAX_LINKS", 20)
    for level in range(30):  # 2^30 paths lead to the last folder
        (tmp_path / f"level{level}").mkdir()
        for name in ("a", "b"):
            (tmp_path / f"level{level}" / name).symlink_to(tmp_path / f"level{level + 1}")
    (tmp_path / "level30").mkdir()
    (images / "link").symlink_to(tmp_path / "level0")
    with pytest.raises(DatasetError, match=r"link/\S+ and 20 other links, .* lead to the folder .*level\d+\. Remove"):
        list(Listing(open_source(str(images), SourceOptions(follow_links=True))))
    assert listed(images) == ["label/whole.png"]


def test_link_within_the_folder_is_an_image(images: Path) -> None:
    (images / "label" / "link.png").symlink_to("whole.png")
    assert contents(images)["label/link.png"] == PICTURE


# -- special files


def test_fifos_and_devices_are_skipped(images: Path) -> None:
    os.mkfifo(images / "label" / "pipe.jpg")
    os.mkfifo(images / "label" / "pipe")
    with suppress(PermissionError):  # of a user but root, and in some containers of root
        os.mknod(images / "label" / "zero.jpg", 0o666 | 0o020000, os.makedev(1, 5))
    with watched(images / "label" / "pipe.jpg") as hung, watched(images / "label" / "pipe") as hung_too:
        assert list(contents(images)) == ["label/whole.png"]
    assert hung + hung_too == []


@pytest.mark.parametrize("name", ["pipe", "pipe.jpg"])
def test_link_to_a_fifo_does_not_hang(images: Path, tmp_path: Path, name: str) -> None:
    """The listing would wait for the first bytes of a file without extension, the worker for the others."""
    os.mkfifo(tmp_path / "fifo")
    (images / "label" / name).symlink_to(tmp_path / "fifo")
    with watched(tmp_path / "fifo") as hung:
        contents(images)
    assert hung == []


def test_fifo_in_place_of_a_listed_file_does_not_hang(images: Path) -> None:
    path = images / "label" / "late.jpg"
    path.write_bytes(PICTURE)
    entries = list(Listing(open_source(str(images))))
    path.unlink()
    os.mkfifo(path)
    with watched(path) as hung:
        list(open_source(str(images)).read(entries))
    assert hung == []


def test_link_to_an_endless_device_is_not_an_image(images: Path) -> None:
    """Reading /dev/zero would fill the memory of the worker, so the test only lists it."""
    (images / "label" / "zero.jpg").symlink_to("/dev/zero")
    assert listed(images) == ["label/whole.png"]


def test_socket_in_place_of_a_listed_file_is_a_reject(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = list(Listing(open_source(str(images))))
    monkeypatch.chdir(images / "label")  # a socket's path has at most 107 bytes
    os.unlink("whole.png")
    with socket.socket(socket.AF_UNIX) as place:
        place.bind("whole.png")
        (data,) = open_source(str(images)).read(entries)
    with pytest.raises(ImageError, match="unreadable"):
        image_bytes(data)


def test_file_of_terabytes_is_a_reject(images: Path) -> None:
    """The file is sparse. Allocating memory for all of it would end the job instead of rejecting the file."""
    with (images / "label" / "huge.jpg").open("wb") as file:
        file.write(b"\xff\xd8\xff")
        file.truncate(2**43)
    data = contents(images)["label/huge.jpg"]
    with pytest.raises(ImageError, match="too-large"):
        image_bytes(data)


# -- names


@pytest.mark.parametrize(
    "name",
    [
        b"\xff\xfe\x80.png",
        b"\xed\xa0\x80.png",  # an encoded surrogate, invalid in UTF-8
        b"x" * 251 + b".png",
        "é".encode() * 125 + b".png",
        b"new\nline\r.png",
        b"\x1b]0;owned\x07.png",
        b"-rf.png",
        b"~.png",
        b"$(touch x).png",
        b"file:.png",
        b"a*b?[c].png",
        b"back\\slash.png",
        b" .png",
        "\u202egnp.png".encode(),
    ],
)
def test_any_name_is_listed_planned_and_read(images: Path, tmp_path: Path, name: bytes) -> None:
    with open(os.fsencode(images / "label") + b"/" + name, "wb") as file:
        file.write(PICTURE)
    entries = list(Listing(open_source(str(images))))
    again = through_storage(entries, Folder(str(tmp_path / "plan")))
    assert again == entries
    assert os.fsdecode(b"label/" + name) in [entry.path for entry in again]
    assert set(contents(images).values()) == {PICTURE}


def test_a_thousand_nested_folders_are_listed_or_rejected(deep: Path) -> None:
    try:
        found = listed(deep)
    except DatasetError:
        return
    assert found[-1] == "label/whole.png"


@pytest.mark.parametrize("path", ["../secret.png", "/secret.png", "label/../../secret.png"])
def test_stored_plan_cannot_lead_out_of_the_images(images: Path, tmp_path: Path, path: str) -> None:
    secret = tmp_path / "secret.png" if path.startswith("/") else images.parent / "secret.png"
    secret.write_bytes(PICTURE)
    path = str(secret) if path.startswith("/") else path
    out = Folder(str(tmp_path / "out"))
    entries = [ImageEntry(path, len(PICTURE)), ImageEntry("label/whole.png", len(PICTURE))]
    (partition,) = even_partitions(write_list(entry_tables(entries), out / "plan").images, 2)
    network = PixelNetwork()
    settings = FeaturizeSettings(
        open_source(str(images)), OwnedFolder(out), network, numeric_fingerprint(network.load())
    )
    report = featurize(planned(partition), settings)
    assert (report.rows, report.rejects) == (1, {"unreadable": 1})
    assert out.read_table("rejects/part-00000.parquet")["path"].to_pylist() == [path]


# -- the output


def test_removing_an_output_does_not_follow_links(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept.txt").write_text("kept")
    out = tmp_path / "out"
    out.mkdir()
    (out / "rows").symlink_to(outside, target_is_directory=True)
    (out / "job.json").symlink_to(outside / "kept.txt")
    Folder.at(str(out)).remove_files(["job.json", "rows"])
    assert (outside / "kept.txt").read_text() == "kept"
    assert list(out.iterdir()) == []


def test_write_replaces_a_link_instead_of_its_target(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("kept")
    (tmp_path / "part-00000.parquet").symlink_to("victim")
    Folder.at(str(tmp_path)).write("part-00000.parquet", b"new")
    assert (tmp_path / "victim").read_text() == "kept"
    assert (tmp_path / "part-00000.parquet").read_bytes() == b"new"


# -- many files


def test_many_files_in_one_folder_are_planned_in_bounded_memory_and_time(images: Path, tmp_path: Path) -> None:
    for number in range(MANY):
        os.mknod(images / "label" / f"{number:06d}.jpg")
    taken = run_module("tests.hostile.plan_folder", images, tmp_path / "plan")["plan"]
    assert taken.result == str(MANY + 1)
    assert taken.memory < 150e6 + 2_500 * MANY
    assert taken.seconds < 5 + MANY / 5_000


if sys.platform != "linux":
    pytestmark = pytest.mark.skip(reason="needs the devices and FIFOs of Linux")
