"""The published reports: every run finished with a correct answer, and the report matches its records."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.record import read_records
from benchmarks.report.page import render

REPORTS = sorted(path.parent for path in (Path(__file__).parents[2] / "benchmarks" / "reports").glob("*/records.jsonl"))


def test_a_report_of_the_full_set_is_published() -> None:
    assert any("--set full" in record.command for folder in REPORTS for record in read_records(folder))


@pytest.mark.parametrize("folder", REPORTS, ids=lambda folder: folder.name)
def test_a_published_report_matches_its_records(folder: Path) -> None:
    records = read_records(folder)
    assert {record.status for record in records} == {"done"}
    assert all(record.answer is None or record.answer.verdict != "wrong" for record in records)
    _page, text, plots = render(records)
    assert (folder / "report.md").read_text("utf-8") == text
    assert (folder / "report.html").exists()
    assert {path.stem for path in (folder / "plots").iterdir()} == set(plots)
