"""The short form of the campaigns: a few faults on small jobs. `make chaos` runs the long form."""

import pytest

from tests.chaos import clock, workers
from tests.chaos.campaigns import run_campaign
from tests.chaos.site import Site


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    return Site(tmp_path_factory.mktemp("chaos"), images=64)


@pytest.mark.parametrize(
    ("name", "backend", "faults"),
    [
        ("driver", "local", 2),
        ("driver", "dask", 1),
        ("workers", "dask", 1),
        ("storage", "dask", 1),
        ("inputs", "local", 1),
        pytest.param("clock", "dask", 1, marks=pytest.mark.skipif(clock.COMPILER is None, reason="no C compiler, cc")),
    ],
)
def test_no_invariant_is_violated(site, monkeypatch, name, backend, faults):
    monkeypatch.setattr(workers, "KINDS", ("killed",))  # Dask takes a minute to replace a stopped worker
    tally = run_campaign(name, site, backend, seed=3, count=faults)
    assert tally.violations == []
    assert tally.faults.total() == faults
    assert tally.seen["jobs finished"] + tally.seen["rejected as another job"] >= 1
    assert tally.seen["finished parts written again"] == 0
