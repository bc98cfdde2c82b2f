"""The short form of the campaigns: a few faults on small jobs; `make chaos` is the long one."""

import pytest

from tests.chaos import clock, workers
from tests.chaos.campaigns import hold
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
def test_nothing_is_lost(site, monkeypatch, name, backend, faults):
    monkeypatch.setattr(workers, "KINDS", ("killed",))  # a stopped one takes Dask a minute
    tally = hold(name, site, backend, seed=3, count=faults)
    assert tally.violations == []
    assert tally.faults.total() == faults
    assert tally.seen["jobs finished"] + tally.seen["refused as another job"] >= 1
    assert tally.seen["finished parts done again"] == 0
