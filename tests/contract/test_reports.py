"""The reports that are kept: every run ended well with the right answer, and the report is of these records."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.record import read_records
from benchmarks.report.page import render

REPORTS = sorted(path.parent for path in (Path(__file__).parents[2] / "benchmarks" / "reports").glob("*/records.jsonl"))


def test_there_is_one_of_a_full_run() -> None:
    assert any("--set full" in record.command for folder in REPORTS for record in read_records(folder))


@pytest.mark.parametrize("folder", REPORTS, ids=lambda folder: folder.name)
def test_a_kept_report_says_what_its_records_say(folder: Path) -> None:
    records = read_records(folder)
    assert {record.status for record in records} == {"done"}
    assert all(record.answer is None or record.answer.verdict != "wrong" for record in records)
    _page, text, plots = render(records)
    assert (folder / "report.md").read_text("utf-8") == text
    assert (folder / "report.html").exists()
    assert {path.stem for path in (folder / "plots").iterdir()} == set(plots)
