"""Packing of sources, and the source of the archives: the same paths, labels and bytes."""

from __future__ import annotations

import io
import json
import os
import tarfile
import tracemalloc
import uuid

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fruits.errors import DamageError, DatasetError, OutputError, RejectsError, SettingsError, StorageError
from fruits.images.decode import ImageError
from fruits.images.sources.entries import ImageEntry, entry_table
from fruits.images.sources.kinds import open_source
from fruits.images.sources.listing import Listing
from fruits.images.tar.pack import pack
from fruits.images.tar.shards import INCOMPLETE
from fruits.storage.folder import Folder
from fruits.storage.prefetch import ChangedFileError
from tests import trees
from tests.unit.images.tar.archives import JPEG

TEXTS = st.characters(codec="utf-8", exclude_characters="\0")
LISTS = st.lists(st.text(TEXTS, max_size=5), max_size=3).map(tuple)
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1, max_size=12)


class Images:
    """A source in memory: entries, each with its content or error."""

    address = "memory://images"

    def __init__(self, images):
        self._images = dict(sorted(images.items(), key=lambda item: item[0].encode("utf-8", "surrogateescape")))

    def tables(self, skipped, limit=None):
        entries = [
            ImageEntry(path, -1, "", "" if label is None else label) for path, (label, _) in self._images.items()
        ]
        for start in range(0, len(entries), 100):
            yield entry_table(entries[start : start + 100], labelled=True)

    def read(self, entries):
        return (self._images[entry.path][1] for entry in entries)


def listed(address):
    """Return path, label and content of the images at an address."""
    source = open_source(str(address))
    entries = list(Listing(source))
    return [(entry.path, entry.label, content) for entry, content in zip(entries, source.read(entries), strict=True)]


@pytest.fixture
def out(tmp_path):
    return Folder.at(tmp_path / "shards")


@pytest.fixture
def tree(tmp_path):
    """Return a folder of images with names of every kind."""
    trees.write(tmp_path / "images", trees.tree())
    return tmp_path / "images"


@pytest.mark.parametrize("shard_size", [10_240, 50_000, 256_000_000])
def test_packed_folder_has_the_images_of_the_folder(tree, out, shard_size):
    expected = listed(tree)
    report = pack(open_source(str(tree)), out, shard_size=shard_size)
    assert listed(f"{out.address}/*.tar") == expected
    assert report.images == len(expected) == sum(shard.images for shard in report.shards)
    assert report.unpacked == {}
    assert report.skipped == trees.expected()[2]
    assert all(shard.bytes <= max(shard_size, 10_240) for shard in report.shards)
    assert (len(report.shards) == 1) == (shard_size > 100_000)
    assert out.read_json("pack.json")["images"] == report.images
    assert out.names() == ["pack.json", *(shard.file for shard in report.shards)]


def test_packed_images_are_members_for_other_programs(tree, out):
    pack(open_source(str(tree)), out)
    with tarfile.open(f"{out.address}/shard-000000.tar", errors="surrogateescape") as tar:
        assert tar.extractfile("Apple/1.jpg").read() == trees.PICTURE
        assert tar.extractfile("Apple/1.txt").read() == b"Apple"
        header = tar.getmember("Apple/1.jpg")
        assert (header.mtime, header.uid, header.uname, header.mode) == (0, 0, "", 0o644)
        names = tar.getnames()
    assert len(names) == len(set(names))


def test_the_same_images_give_the_same_archives(tree, tmp_path):
    reports = [pack(open_source(str(tree)), Folder.at(tmp_path / name), shard_size=20_480) for name in "ab"]
    assert reports[0].shards == reports[1].shards
    again = pack(open_source(f"{tmp_path}/a/*.tar"), Folder.at(tmp_path / "c"), shard_size=20_480)
    assert again.shards == reports[0].shards


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(
    images=st.dictionaries(
        st.lists(NAMES, min_size=1, max_size=3).map("/".join),
        st.tuples(
            st.none() | st.just("\ufeffa") | st.text(TEXTS, min_size=1, max_size=9),
            st.sampled_from([JPEG, b"", b"x" * 2000]),
        ),
        min_size=1,
        max_size=30,
    ),
    shard_size=st.sampled_from([10_240, 30_720, 10**8]),
)
@example({"1.jpg": (None, b"x"), "1.k.jpg": ("a", b"y"), "1.png": (None, b"z")}, 10**8)
@example({"1.jpg": ("a", b"x"), "1.k.jpg": (None, b"y"), "b/1.png": (None, b"z"), "b/2.png": (" b\n", b"z")}, 10**8)
@example({"photo": ("a", JPEG), "photo!.jpg": ("b", b"y"), "photo.jpg": ("a", b"y")}, 10**8)
@example({f"IMG.{number}.jpg": (str(number), b"x") for number in range(30)}, 10_240)
def test_every_packed_image_comes_back_and_every_other_one_is_named(tmp_path, images, shard_size):
    images = {f"{path}.jpg" if "." not in path else path: image for path, image in images.items()}
    out = Folder.at(tmp_path / uuid.uuid4().hex)
    report = pack(Images(images), out, shard_size=shard_size, max_reject_fraction=1.0)
    left_out = [json.loads(line)["path"] for line in out.read("unpacked.jsonl").splitlines()] if report.unpacked else []
    assert len(left_out) == sum(report.unpacked.values())
    source = open_source(f"{out.address}/*.tar", _hidden()) if report.images else None
    entries = list(Listing(source)) if source else []
    found = {
        entry.path: (entry.label, content)
        for entry, content in zip(entries, source.read(entries) if source else (), strict=True)
    }
    assert len(found) == report.images == len(images) - len(left_out)
    assert found == {path: images[path] for path in found}


def _hidden():
    from fruits.images.sources.options import SourceOptions

    return SourceOptions(include_hidden=True)


def test_lists_of_labels_come_back(out):
    images = {"a/1.jpg": (("x", "y"), b"1"), "a/2.jpg": ((), b"2"), "b/3.jpg": (("é",), b"3")}
    assert pack(Images(images), out).images == 3
    assert listed(f"{out.address}/*.tar") == [(path, *image) for path, image in images.items()]


def test_images_that_cannot_be_members_are_counted_and_named(out):
    images = {
        "./1.jpg": (None, JPEG),
        "a/label.txt": ("a", JPEG),
        "a/1.jpg": ("x", JPEG),
        "a/1.png": ("y", JPEG),
        "b/1.jpg": ("b", ImageError("unreadable", "its path leads out of the image folder")),
        "b/2.jpg": ("b", PermissionError(13, "Permission denied")),
        "b/3.jpg": ("b", ChangedFileError("another size")),
        "c/1.jpg": ("c", b""),
    }
    report = pack(Images(images), out, max_reject_fraction=0.8)
    assert report.unpacked == {"path": 2, "label": 1, "unreadable": 2, "changed": 1}
    named = [json.loads(line) for line in out.read("unpacked.jsonl").splitlines()]
    assert {each["path"] for each in named} == images.keys() - {"a/1.jpg", "c/1.jpg"}
    assert [path for path, *_ in listed(f"{out.address}/*.tar")] == ["a/1.jpg", "c/1.jpg"]


def test_too_many_unreadable_images_fail_and_leave_no_archives_to_read(out):
    images = {f"a/{number}.jpg": ("a", JPEG if number else PermissionError(13, "denied")) for number in range(5)}
    with pytest.raises(RejectsError, match="1 of 5 images cannot be packed"):
        pack(Images(images), out)
    with pytest.raises(DatasetError, match="has not finished these archives"):
        listed(f"{out.address}/*.tar")
    assert pack(Images(images), out, max_reject_fraction=0.2, overwrite=True).images == 4
    assert len(listed(f"{out.address}/*.tar")) == 4


def test_failed_storage_ends_the_pack_and_the_folder_is_refused_until_it_is_overwritten(out):
    failing = Images({"a/1.jpg": ("a", OSError(5000, "slow down"))})
    with pytest.raises(StorageError, match=r"slow down.*`overwrite`"):
        pack(failing, out)
    assert out.names() == []
    failing = Images({"a/1.jpg": ("a", JPEG), "a/2.jpg": ("a", OSError(5000, "slow down"))})
    with pytest.raises(StorageError, match=r"slow down.*`overwrite`"):
        pack(failing, out)
    assert out.names() == [INCOMPLETE]
    images = Images({"a/1.jpg": ("a", JPEG)})
    with pytest.raises(OutputError, match=r"not empty, it contains an unfinished pack.*`overwrite`"):
        pack(images, out)
    pack(images, out, overwrite=True)
    assert out.names() == ["pack.json", "shard-000000.tar"]


def test_other_files_are_never_overwritten(out):
    out.write("shard-000000.tar", b"mine?")
    out.write("thesis.doc", b"mine")
    for overwrite in (False, True):
        with pytest.raises(OutputError, match=r"not empty, it contains thesis.doc. Give an empty folder\."):
            pack(Images({"a/1.jpg": ("a", JPEG)}), out, overwrite=overwrite)
    assert out.names() == ["shard-000000.tar", "thesis.doc"]


@pytest.mark.parametrize("at", range(6))
def test_a_pack_that_was_suspended_changes_nothing_of_its_successor(out, at):
    """The first pack is replaced by another one while it waits for its image number `at`; 5: after its last archive."""

    class Suspended(Images):
        def read(self, entries):
            for number, content in enumerate(super().read(entries)):
                if number == at:
                    replace()
                yield content
            if at == 5:
                replace()

    def replace():
        pack(Images(second), out, overwrite=True, shard_size=20_480)
        expected.update({name: out.read(name) for name in out.names()})

    first, second = ({f"a/{number}.jpg": (label, JPEG * 400) for number in range(5)} for label in "xy")
    expected = {}
    with pytest.raises(OutputError, match="another fruits pack with `overwrite` replaced this one"):
        pack(Suspended(first), out, shard_size=20_480)
    assert {name: out.read(name) for name in out.names()} == expected
    assert [label for _, label, _ in listed(f"{out.address}/*.tar")] == ["y"] * 5


def test_source_without_images_is_an_error(tmp_path, out):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="contains no images"):
        pack(open_source(str(tmp_path / "empty")), out)
    assert out.names() == []


def test_small_limit_is_refused(out):
    with pytest.raises(SettingsError, match="`shard_size` = 9,999: not allowed"):
        pack(Images({}), out, shard_size=9_999)
    with pytest.raises(SettingsError, match="`max_reject_fraction` = nan: not allowed"):
        pack(Images({}), out, max_reject_fraction=float("nan"))


def test_archive_that_differs_when_read_back_is_an_error(out, monkeypatch):
    fetch = Folder.fetch_ranges

    def changed(self, ranges, **options):
        for data in fetch(self, ranges, **options):
            yield data[:-1] + bytes([data[-1] ^ 1])

    monkeypatch.setattr(Folder, "fetch_ranges", changed)
    with pytest.raises(DamageError, match=r"shard-000000\.tar differs from what was written"):
        pack(Images({"a/1.jpg": ("a", JPEG)}), out)


def test_memory_does_not_grow_with_the_number_of_images(out):
    def peak(count):
        images = Images({f"a/{number:05d}.jpg": ("a", content) for number in range(count)})
        tracemalloc.start()
        try:
            pack(images, Folder.at(f"{out.address}-{count}"), shard_size=2_000_000)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    content = os.urandom(20_000)
    assert peak(1600) < 1.3 * peak(400)


# -- foreign archives


def webdataset(path, samples):
    """Write an archive as the TarWriter of webdataset does."""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for key, fields in samples:
            for extension in sorted(fields):
                header = tarfile.TarInfo(f"{key}.{extension}")
                header.size, header.mode, header.mtime = len(fields[extension]), 0o444, 1_700_000_000
                header.uname = header.gname = "bigdata"
                tar.addfile(header, io.BytesIO(fields[extension]))


def test_shards_of_webdataset_are_sorted_by_path(tmp_path):
    rng = np.random.default_rng(0)
    order = rng.permutation(5000)
    for shard in range(5):
        samples = [(f"{key:06d}", {"jpg": JPEG + b"%d" % key, "cls": b"%d" % (key % 10)}) for key in order[shard::5]]
        webdataset(tmp_path / f"{shard:03d}.tar", samples)
    source = open_source(f"{tmp_path}/{{000..004}}.tar")
    entries = list(Listing(source))
    assert [entry.path for entry in entries] == [f"{key:06d}.jpg" for key in range(5000)]
    assert [entry.label for entry in entries] == [str(key % 10) for key in range(5000)]
    assert list(source.read(entries)) == [JPEG + b"%d" % key for key in range(5000)]
    assert list(source.read(entries[100:110])) == [JPEG + b"%d" % key for key in range(100, 110)]


def test_path_in_two_archives_is_an_error_with_both_places(tmp_path):
    for name in ("0.tar", "1.tar"):
        webdataset(
            tmp_path / name, [(f"{name[0]}-{key}", {"jpg": JPEG}) for key in range(3)] + [("same", {"jpg": JPEG})]
        )
    with pytest.raises(
        DatasetError, match=r"the path same\.jpg is there twice: .*/0\.tar at byte 3,584, and .*/1\.tar at byte 3,584"
    ):
        list(Listing(open_source(f"{tmp_path}/*.tar")))


def test_archive_that_was_rewritten_gives_rejects(tmp_path):
    webdataset(tmp_path / "0.tar", [("1", {"jpg": JPEG}), ("2", {"jpg": JPEG})])
    source = open_source(f"{tmp_path}/0.tar")
    entries = list(Listing(source))
    webdataset(tmp_path / "0.tar", [("1", {"jpg": JPEG}), ("2", {"jpg": JPEG * 50})])
    assert [type(content) for content in source.read(entries)] == [ChangedFileError, ChangedFileError]
    assert {entry.version for entry in entries} != {entry.version for entry in Listing(source)}
    (tmp_path / "0.tar").unlink()
    assert [type(content) for content in source.read(entries)] == [FileNotFoundError, FileNotFoundError]


@pytest.mark.parametrize("length", range(0, 5120, 512))
def test_truncated_archive_among_others_is_named(tmp_path, length):
    for name in ("0.tar", "1.tar"):
        webdataset(tmp_path / name, [(f"{name}-{key}", {"jpg": JPEG, "cls": b"1"}) for key in range(2)])
    data = (tmp_path / "1.tar").read_bytes()
    (tmp_path / "1.tar").write_bytes(data[:length])
    with pytest.raises(DatasetError, match=rf"^{tmp_path}/1\.tar: at byte [\d,]+: the archive is truncated"):
        list(Listing(open_source(f"{tmp_path}/*.tar")))


@pytest.mark.parametrize("name", ["x.tar.gz", "x.tgz", "x.tar.zst"])
def test_compressed_archive_is_refused_with_advice(tmp_path, name):
    with pytest.raises(SettingsError, match=r"compressed.*Decompress"):
        open_source(f"{tmp_path}/{name}")


def test_options_of_folders_are_refused(tmp_path):
    from fruits.images.sources.options import SourceOptions

    with pytest.raises(SettingsError, match=r"`follow_links` with .*not allowed, because it is"):
        open_source(f"{tmp_path}/x.tar", SourceOptions(follow_links=True))


def test_tables_have_one_schema_and_sources_pickle(tmp_path):
    import pickle

    webdataset(tmp_path / "0.tar", [("1", {"jpg": JPEG, "json": b'{"label": ["a"]}'}), ("2", {"jpg": JPEG})])
    source = pickle.loads(pickle.dumps(open_source(f"{tmp_path}/0.tar")))
    (table,) = Listing(source).tables()
    assert pa.types.is_list(table.schema.field("label").type)
    assert [entry.label for entry in Listing(source)] == [("a",), ()]


def test_image_without_extension_and_signature_is_left_out(out):
    images = {"a/1": ("a", JPEG), "a/2": ("a", b"words"), "../3.jpg": ("a", JPEG)}
    report = pack(Images(images), out, max_reject_fraction=1.0)
    assert (report.images, report.unpacked) == (1, {"path": 2})


@pytest.mark.parametrize("pattern", ["*.tar", "{shard-000000,shard-000001}.tar", "../{shards,other}/shard-000000.tar"])
def test_archives_are_not_replaced_by_themselves(out, pattern):
    images = {f"a/{number}.jpg": ("a", JPEG * 200) for number in range(3)}
    pack(Images(images), out, shard_size=20_480)
    Folder.at(f"{out.address}/../other").write("shard-000000.tar", bytes(1024))
    before = {name: out.read(name) for name in out.names()}
    with pytest.raises(DatasetError, match="fruits pack has not finished these archives"):
        pack(open_source(f"{out.address}/{pattern}"), out, overwrite=True)
    with pytest.raises(DatasetError, match="no such folder"):
        pack(open_source(f"{out.address}/missing/"), out, overwrite=True)
    assert {name: out.read(name) for name in out.names()} == before


def test_archives_that_a_replaced_pack_wrote_meanwhile_are_removed(out):
    class Slow(Images):
        def read(self, entries):
            out.write("shard-000007.tar", b"of a pack that this one replaces")
            return super().read(entries)

    pack(Slow({"a/1.jpg": ("a", JPEG)}), out)
    assert out.names() == ["pack.json", "shard-000000.tar"]


def test_files_of_an_earlier_pack_are_removed(out):
    images = {f"a/{number}.jpg": ("a", JPEG * 200) for number in range(9)}
    assert len(pack(Images(images), out, shard_size=20_480).shards) == 9
    out.write(".shard-000009.tar.1234.tmp", b"of a killed pack")
    pack(Images(images), out, overwrite=True)
    assert out.names() == ["pack.json", "shard-000000.tar"]
