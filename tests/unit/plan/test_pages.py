"""Lists of images in pages."""

import pytest

from fruits.errors import DamageError
from fruits.images.sources.entries import ImageEntry, entry_tables
from fruits.plan import pages
from fruits.plan.pages import decode_images, pages_of, write_list
from fruits.storage.folder import Folder
from tests.plans import stored_list


@pytest.fixture
def entries(monkeypatch):
    """Return 23 images, with pages of 8 images in groups of 2."""
    monkeypatch.setattr(pages, "GROUP", 2)
    monkeypatch.setattr(pages, "PAGE", 8)
    return [ImageEntry(f"label/{number:02d}.jpg", number, f"v{number}") for number in range(23)]


def test_any_slice_is_read_from_its_pages_alone(entries, tmp_path):
    folder = Folder(str(tmp_path))
    assert write_list(entry_tables(entries), folder).images == 23
    assert folder.names() == ["part-00000.parquet", "part-00001.parquet", "part-00002.parquet"]
    for start in range(24):
        for images in range(24 - start):
            assert stored_list(folder, start, images) == entries[start : start + images]
    assert (pages_of(7, 2), pages_of(8, 8), pages_of(8, 9)) == (range(0, 2), range(1, 2), range(1, 3))
    assert pages_of(5, 0) == range(0)


def test_a_list_that_ends_early_is_damage(entries, tmp_path):
    folder = Folder(str(tmp_path))
    write_list(entry_tables(entries), folder)
    with pytest.raises(DamageError, match=r"ends 1 image early|cannot be read"):
        stored_list(folder, 20, 4)


@pytest.mark.parametrize("data", [b"", b"PAR1", b"\0" * 500])
def test_a_corrupt_page_is_damage(data):
    with pytest.raises(DamageError, match="page 0"):
        list(decode_images([data], 0, 1))


def test_pages_depend_on_the_list_alone(entries, tmp_path):
    for name in ("one", "two"):
        write_list(entry_tables(entries), Folder(str(tmp_path / name)))
    contents = [[path.read_bytes() for path in sorted((tmp_path / name).iterdir())] for name in ("one", "two")]
    assert contents[0] == contents[1]
