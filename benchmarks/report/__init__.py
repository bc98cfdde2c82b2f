"""The report of a measurement: Markdown with plots in files, and one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from benchmarks.record import Record
from fruits.errors import SettingsError


def write_report(folder: Path, records: Sequence[Record]) -> tuple[Path, Path]:
    """Write ``report.html``, ``report.md`` and ``plots/`` from records with at least one finished run.

    Returns
    -------
    (Path, Path)
        HTML page and Markdown file.

    Raises
    ------
    SettingsError
        jinja2 or matplotlib is not installed.
    """
    if absent := [name for name in ("jinja2", "matplotlib") if find_spec(name) is None]:
        raise SettingsError(
            f"the report needs {' and '.join(absent)}. Install them with: pip install 'fruits[bench]', then: "
            f"fruits bench report {folder}. The records are in {folder}/records.jsonl."
        )
    from benchmarks.report.page import render

    page, text, plots = render(records)
    (folder / "plots").mkdir(parents=True, exist_ok=True)
    for name, svg in plots.items():
        (folder / "plots" / f"{name}.svg").write_text(svg, "utf-8")
    (folder / "report.html").write_text(page, "utf-8")
    (folder / "report.md").write_text(text, "utf-8")
    return folder / "report.html", folder / "report.md"
