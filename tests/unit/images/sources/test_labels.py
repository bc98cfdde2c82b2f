"""Labels from the paths of images, by a regular expression."""

from __future__ import annotations

from pathlib import Path

import pytest

from fruits.errors import DatasetError, SettingsError
from fruits.images.sources.kinds import open_source, stored_source
from fruits.images.sources.listing import Listing
from fruits.images.sources.options import SourceOptions
from fruits.jobs.job import Job
from tests.trees import PICTURE, write


def labels(folder: Path, expression: str) -> dict[str, object]:
    listing = Listing(open_source(str(folder), SourceOptions(label_regex=expression)))
    return {entry.path: entry.label for entry in listing}


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        (r"([a-z]+)_\d+\.jpg$", ["apple", "pear", "apple"]),
        (r"(?P<number>\d+)\.(?P<label>j)", ["j", "j", "j"]),
        ("^x/(a)?", ["a", None, None]),
        ("x/(y*)", [None, None, "y"]),
    ],
)
def test_the_label_is_a_group_of_the_match(tmp_path: Path, expression: str, expected: list[str | None]) -> None:
    write(tmp_path, {f"x/{name}": PICTURE for name in ("apple_1.jpg", "pear_2.jpg", "y/apple_3.jpg")})
    assert list(labels(tmp_path, expression).values()) == expected


def test_names_that_are_not_utf_8_have_labels(tmp_path: Path) -> None:
    (tmp_path / "p\udcffche_1.jpg").write_bytes(PICTURE)
    assert labels(tmp_path, "(.*)_") == {"p\udcffche_1.jpg": "p\udcffche"}


def test_a_path_without_a_match_is_an_error_that_names_it(tmp_path: Path) -> None:
    write(tmp_path, {"apple_1.jpg": PICTURE, "other.jpg": PICTURE})
    with pytest.raises(DatasetError, match=r"`label_regex` \(\.\*\)_ does not match the path other\.jpg\."):
        labels(tmp_path, "(.*)_")


@pytest.mark.parametrize(
    ("expression", "message"), [("(", "missing \\)"), ("abc", "it has no group"), ("(?:a)", "no group"), ("", "empty")]
)
def test_an_expression_that_gives_no_label_is_refused(expression: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Job(images="images", out="out", label_regex=expression)


def test_labels_are_counted_and_the_sample_has_each(tmp_path: Path) -> None:
    write(tmp_path, {f"{'ab'[number % 7 == 0]}_{number}.jpg": PICTURE for number in range(20)})
    source = open_source(str(tmp_path), SourceOptions(label_regex="(.)_"))
    listing = Listing(source, sample=3)
    assert {entry.label for entry in listing} == {"a", "b"}
    assert listing.labels == 2


def test_the_source_of_a_stored_job_has_its_options(tmp_path: Path) -> None:
    write(tmp_path, {"a_1.jpg": PICTURE})
    assert stored_source({"images": str(tmp_path), "follow_links": False}) == open_source(str(tmp_path))
    options = SourceOptions(label_regex="(.)_", follow_links=True)
    identity = {"images": str(tmp_path), "limit": None} | options.given()
    assert stored_source(identity) == open_source(str(tmp_path), options)
