"""Results of single measurements: a table in Markdown, and the raw figures in JSON."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import orjson

from benchmarks.measure.machine import commit, machine, versions


def write_results(folder: str, name: str, table: str, figures: Mapping[str, object]) -> None:
    """Print a table, and write it to ``NAME.md`` and the figures, with their provenance, to ``NAME.json``."""
    out = Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{name}.md").write_text(table)
    values = {"machine": machine(), "commit": commit(), "versions": versions(), **figures}
    (out / f"{name}.json").write_bytes(orjson.dumps(values, option=orjson.OPT_INDENT_2))
    print(table)
