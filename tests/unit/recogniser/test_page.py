"""The page of an evaluation: content, hostile names, no requests."""

from __future__ import annotations

from fruits.recogniser.evaluation.leave_out import LeftOut
from fruits.recogniser.evaluation.metrics import Outcome, measure
from fruits.recogniser.evaluation.page import Heading, render_page
from tests.pages import Page, requests

HEADING = Heading("abc123", 3, 900, "/photos/Test")
OUTCOMES = [
    *(Outcome(f"a/{number}.jpg", "Apple", ("Apple", "Pear"), 0.9, None) for number in range(8)),
    Outcome("a/8.jpg", "Apple", ("Pear", "Apple"), 0.8, None),
    Outcome("b/0.jpg", "Pear", ("Pear", "Apple"), 0.6, "uncertain"),
]
LEFT_OUT = [LeftOut(0, "Apple", 1, 30, 20, 4), LeftOut(0, "Pear", 0, 30, 30, 0)]


def test_the_page_states_the_numbers() -> None:
    page = Page(render_page(HEADING, measure(OUTCOMES), LEFT_OUT, {}, {}))
    for text in ("90.0 %", "95 % interval 59.6 % to 98.2 %", "100.0 %", "Recogniser abc123", "900 images"):
        assert text in page.text
    assert "of 60 images of 2 labels, 83.3 % are rejected, 6.7 % are placed in their class" in page.text
    assert "uncertain" in page.text
    assert sum(tag == "svg" for tag, _ in page.tags) == 2


def test_no_figure_is_broken_before_its_unit() -> None:
    html = render_page(HEADING, measure(OUTCOMES), LEFT_OUT, {}, {})
    assert html.count("\u00a0%") > 10
    assert " %" not in html


def test_pictures_are_part_of_the_page_and_missing_ones_are_left_out() -> None:
    pictures = {"a/8.jpg": b"\xff\xd8 mistake"}
    page = Page(render_page(HEADING, measure(OUTCOMES), [], pictures, {"Pear": b"\xff\xd8 pear"}))
    sources = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    assert len(sources) == 4  # the mistake and a pear, as a confusion and as a sure error
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
    assert "Not measured" in page.text


def test_hostile_names_are_text() -> None:
    hostile = "<script>alert(1)</script>\u202e" + "x" * 10_000
    outcomes = [Outcome(hostile, hostile, ("'\"><img src=x>", hostile), 0.9, None)]
    html = render_page(Heading("1", 2, 3, hostile), measure(outcomes), [LeftOut(0, hostile, 0, 1, 0, 0)], {}, {})
    page = Page(html)
    assert not any(tag in ("script", "img") for tag, _ in page.tags)
    assert "\u202e" not in html
    assert len(html) < 50_000


def test_the_page_of_many_classes_with_large_pictures_stays_below_2_mb() -> None:
    outcomes = [
        Outcome(f"{label}/0.jpg", label, ("'" * 99,), 0.9, None)
        for label in (f"{'<' * 90}{number}" for number in range(5000))
    ]
    examples = {"'" * 99: bytes(1_000_000)}
    html = render_page(HEADING, measure(outcomes), [LeftOut(0, "'" * 99, 0, 1, 0, 0)] * 200, {}, examples)
    assert len(html) < 2_000_000
    assert "The 1,000 of 5,001 with the lowest recall; report.json has all." in Page(html).text


def test_the_page_makes_no_request() -> None:
    assert requests(render_page(HEADING, measure(OUTCOMES), LEFT_OUT, {"a/8.jpg": b"\xff\xd8"}, {})) == []
