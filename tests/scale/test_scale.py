"""Short form of `make scale`: a simulated job that is stopped half-way and resumed."""

import tracemalloc

import pytest

from fruits.jobs.stored import encode_accounts
from fruits.jobs.tasks.moments import levels
from fruits.jobs.tasks.reports import PartitionReport
from tests.scale import standins
from tests.scale.__main__ import simulate

WORKERS = 2
WINDOW = 3 * WORKERS


@pytest.mark.parametrize(("backend", "partitions"), [("local", 400), ("dask", 64)])
def test_engine_takes_a_window_of_items_and_a_resumed_job_completes_the_rest(tmp_path, backend, partitions):
    out = str(tmp_path / "out")
    job = {"partitions": partitions, "partition_size": 10, "workers": WORKERS, "out": out}
    first = simulate(backend, **job, stop_at=partitions // 2)
    assert partitions // 2 <= first["featurized"] <= partitions // 2 + WINDOW
    second = simulate(backend, **job)
    assert first["largest_number_held"] <= WINDOW
    assert second["largest_number_held"] <= WINDOW
    assert "survey" in second["seconds"]
    assert standins.counted("featurize", out) <= partitions + WINDOW
    assert first["featurized"] + second["featurized"] == standins.counted("featurize", out)
    groups = [len(level) for level in levels([10] * partitions)]
    assert standins.counted("merge", out) == sum(groups)


def test_accounts_of_partitions_take_little_memory():
    reports = [PartitionReport(index, 1000, 1000, {}) for index in range(5000)]
    tracemalloc.start()
    try:
        encode_accounts(reports)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 600 * len(reports)
