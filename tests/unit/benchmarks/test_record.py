from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.record import RECORDS, SCHEMA, STAGES, Record, append, read_records
from fruits.errors import SettingsError
from tests.bench_records import CLOSE, WRONG, record, session


def test_a_record_is_restored_from_its_line() -> None:
    for one in (record(), record("peer-daft", "daft", answer=CLOSE), record(answer=None, status="failed", reason="x")):
        line = one.to_json()
        assert line.endswith(b"\n")
        assert line.count(b"\n") == 1
        assert Record.from_json(line) == one


def test_a_line_has_all_fields_and_rates() -> None:
    values = json.loads(record(images=1_000, rate=100, workers=2).to_json())
    assert values["schema"] == SCHEMA == "fruits.bench/1"
    assert set(values["seconds"]) <= set(STAGES)
    assert values["rates"] == {
        "images_per_second": 100.0,
        "images_per_second_per_core": 50.0,
        "images_per_second_whole": pytest.approx(1_000 / 12.9, abs=0.001),
        "images_per_second_whole_per_core": pytest.approx(1_000 / 12.9 / 2, abs=0.001),
    }
    wanted = "commit versions machine case repeat cold load busy steal wall cpu_seconds bytes_written driver_peak"
    assert set(wanted.split()) <= set(values)
    assert {"digest", "verdict", "largest", "cosine"} <= set(values["answer"])
    assert set(values["machine"]) == {"cpu", "cores", "memory", "system"}
    assert {"scenario", "backend", "workers", "images", "partition_size"} <= set(values["case"])


def test_work_excludes_start_up_and_shutdown() -> None:
    one = record(stages={"listing": 1.0, "featurize": 6.0, "fit": 2.0, "write": 1.0})
    assert one.work == 10.0
    assert one.wall == 10.0 + 2.5 + 0.4


def test_wrong_failed_and_skipped_runs_are_not_ranked() -> None:
    assert record().ranked
    assert record(answer=CLOSE).ranked
    assert not record(answer=WRONG).ranked
    assert not record(status="failed").ranked
    assert not record(status="not run").ranked


@pytest.mark.parametrize(
    "line", [b"{", b"[]", b"{}", b'{"schema": "fruits.bench/2"}', b'{"schema": "fruits.bench/1", "rates": {}}']
)
def test_an_invalid_line_is_rejected(line: bytes, tmp_path: Path) -> None:
    append(tmp_path, record())
    with (tmp_path / RECORDS).open("ab") as file:
        file.write(line + b"\n")
    with pytest.raises(SettingsError, match=f"{RECORDS}, line 2"):
        read_records(tmp_path)


def test_only_the_last_session_of_a_group_is_read(tmp_path: Path) -> None:
    old, other, new = record(rate=100), record(group="growth"), record(rate=200, session="20260202T000000Z")
    for one in (old, other, new):
        append(tmp_path, one)
    assert read_records(tmp_path) == [other, new]


def test_a_folder_without_records_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="fruits bench IMAGES"):
        read_records(tmp_path)


def test_the_sample_session_of_these_tests_can_be_read(tmp_path: Path) -> None:
    for one in session():
        append(tmp_path, replace(one))
    assert read_records(tmp_path) == session()
