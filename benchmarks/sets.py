"""Sets of groups: ``quick`` takes minutes, ``standard`` half an hour on 2 cores, ``full`` an hour and a quarter.

The budget, in minutes on 2 cores, checking answers included: of `standard` as it took on 2026-11-26, at 170 images/s of
ours; of `full` reckoned from what each run takes at 230:

=========== ============================================================================================== =======
standard    runs                                                                                           minutes
=========== ============================================================================================== =======
featurize   2,048 images: Dask twice, Spark, bare loop, ceiling; 5 repeats                                       7
other tools 1,024 images: Dask twice, Spark, transform on both, four peers; 3 repeats                           13
one worker  1,024 images: Dask, Spark; 3 repeats                                                               1.5
growth      8,192 images: Dask, Spark; 2 repeats                                                                 3
whole jobs  1,024 images: run and fit on Dask and Spark; 3 repeats                                             2.5
first image Dask, Spark; 5 repeats                                                                             0.5
solvers     5,000 rows: exact on three backends, dask-ml, Spark ML, scikit-learn; 3 repeats                    3.5
plan, csv   1,000,000 keys; 5,000 rows; 5 repeats                                                                1
=========== ============================================================================================== =======

``full`` has the numbers that the goals of :mod:`benchmarks.targets` were set for, and what takes many minutes less
often; what is compared across groups comes one after the other:

=========== ============================================================================================== =======
full        runs                                                                                           minutes
=========== ============================================================================================== =======
featurize   5,120 images: Dask twice, Spark, transform on both, bare loop, ceiling; 5 repeats                   14
growth      83,968 images: Dask, Spark; once                                                                    13
first image Dask, Spark; 5 repeats                                                                               1
one worker  1,024 images: Dask, Spark; 5 repeats                                                               2.5
plan, csv   10,000,000 keys; 5,000 rows; 3 and 5 repeats                                                         3
solvers     5,000, 20,000 and 67,692 rows, as above; 3 repeats                                                  12
other tools 5,120 images: Dask twice, Spark, four peers; 3 repeats                                              18
whole jobs  21,504 images: run on Dask and Spark, run by peer-notebook; once                                    10
=========== ============================================================================================== =======

Numbers of images are multiples of 1,024, two partitions: on few images, the last partition of an odd number would
leave one of two workers idle for a share of the time that says nothing about more images.
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.cases import Case, Group
from benchmarks.scenarios import PEERS, load
from fruits.errors import SettingsError

__all__ = ["SETS", "asked_groups", "set_groups"]

OURS = ("dask", "spark")
SOLVERS = ("dask", "spark", "local", "dask-ml", "spark-ml", "scikit-learn")
PLAIN = ("bare-loop", "ceiling")
PEER = ("peer-", "run-peer-")
DEFAULT_IMAGES = {"plan": 1_000_000, "moments": 20_000, "csv": 5_000, "first-image": 1}


def _both(scenario: str, workers: int, images: int) -> tuple[Case, ...]:
    return tuple(Case(scenario=scenario, backend=name, workers=workers, images=images) for name in OURS)


def _alone(names: Sequence[str], workers: int, images: int) -> tuple[Case, ...]:
    return tuple(Case(scenario=name, backend=backend_of(name), workers=workers, images=images) for name in names)


def _solvers(workers: int, rows: int) -> tuple[Case, ...]:
    return tuple(
        Case(scenario="moments", backend=name, workers=1 if name in ("local", "scikit-learn") else workers, images=rows)
        for name in SOLVERS
    )


def _standard(workers: int) -> tuple[Group, ...]:
    ours = (*_both("featurize", workers, 1_024), *_both("transform", workers, 1_024))
    jobs = (*_both("run", workers, 1_024), *_both("fit", workers, 1_024))
    return (
        Group("featurize", (*_both("featurize", workers, 2_048), *_alone(PLAIN, workers, 2_048))),
        Group("other tools", (*ours, *_alone(tuple(PEERS), workers, 1_024)), repeats=3),
        Group("one worker", _both("featurize", 1, 1_024), repeats=3, control=False),
        Group("growth", _both("featurize", workers, 8_192), repeats=2, control=False),
        Group("whole jobs", jobs, repeats=3, control=False),
        Group("first image", _both("first-image", workers, 1), control=False),
        Group("solvers", _solvers(workers, 5_000), repeats=3),
        Group("plan", _alone(("plan",), 1, 1_000_000), control=False),
        Group("csv", _alone(("csv",), 1, 5_000), control=False),
    )


def _full(workers: int) -> tuple[Group, ...]:
    tools = (*_both("featurize", workers, 5_120), *_alone(tuple(PEERS), workers, 5_120))
    ours = (*_both("featurize", workers, 5_120), *_both("transform", workers, 5_120))
    jobs = (*_both("run", workers, 21_504), *_alone(("run-peer-notebook",), workers, 21_504))
    return (
        Group("featurize", (*ours, *_alone(PLAIN, workers, 5_120))),
        Group("growth", _both("featurize", workers, 83_968), repeats=1, control=False),
        Group("first image", _both("first-image", workers, 1), control=False),
        Group("one worker", _both("featurize", 1, 1_024), control=False),
        Group("csv", _alone(("csv",), 1, 5_000), control=False),
        Group("plan", _alone(("plan",), 1, 10_000_000), repeats=3, control=False),
        *(Group(f"solvers {rows:,}", _solvers(workers, rows), repeats=3) for rows in (5_000, 20_000, 67_692)),
        Group("other tools", tools, repeats=3),
        Group("whole jobs", jobs, repeats=1, control=False),
    )


def _quick(workers: int) -> tuple[Group, ...]:
    return (
        Group("featurize", (*_both("featurize", workers, 1_024), *_alone(PLAIN, workers, 1_024)), repeats=2),
        Group("one worker", _both("featurize", 1, 512), repeats=1, control=False),
        Group("growth", _both("featurize", workers, 2_048), repeats=1, control=False),
        Group("other tools", (*_both("featurize", workers, 1_024), *_alone(tuple(PEERS), workers, 1_024)), repeats=1),
        Group("whole jobs", _both("run", workers, 1_024), repeats=1, control=False),
        Group("solvers 2,000", _solvers(workers, 2_000), repeats=1),
    )


SETS = {"standard": _standard, "full": _full, "quick": _quick}


def set_groups(name: str, workers: int) -> tuple[Group, ...]:
    """Return the groups of the set `name`, for so many workers.

    Raises
    ------
    SettingsError
        There is no such set.
    """
    if name not in SETS:
        raise SettingsError(f"--set {name}: not known. Allowed: {', '.join(SETS)}.")
    return SETS[name](workers)


def backend_of(scenario: str) -> str:
    """Return what a scenario runs on where nothing else is asked for."""
    module = load(scenario)
    return PEERS.get(scenario.removeprefix("run-"), module.BACKENDS[0])


def asked_groups(
    *,
    scenarios: Sequence[str],
    backends: Sequence[str],
    workers: Sequence[int],
    images: Sequence[int],
    repeats: int,
    partition_size: int,
    components: int,
) -> tuple[Group, ...]:
    """Return a group for each number of images, of all that is asked for, in the order in which it is named.

    Parameters
    ----------
    scenarios, backends : sequence of str
        A scenario that knows none of them runs on its own default. Where none is given: Dask and Spark.
    workers, images : sequence of int
        Where no number of images is given, a scenario has its own, and 5,240 if it works on images.
    repeats, partition_size, components : int
        Of every case.

    Raises
    ------
    SettingsError
        A scenario is not known, or a backend is known to none of them.
    """
    known = {name: (backend_of(name),) if name.startswith(PEER) else load(name).BACKENDS for name in scenarios}
    if strangers := [name for name in backends if not any(name in allowed for allowed in known.values())]:
        allowed = ", ".join(sorted({name for names in known.values() for name in names}))
        raise SettingsError(f"--backend {','.join(strangers)}: not for {', '.join(scenarios)}. Allowed: {allowed}.")
    groups: dict[int, list[Case]] = {}
    for scenario in scenarios:
        for count in images or (DEFAULT_IMAGES.get(scenario, 5_240),):
            for backend in [name for name in backends or OURS if name in known[scenario]] or [backend_of(scenario)]:
                for cores in workers:
                    case = Case(
                        scenario=scenario,
                        backend=backend,
                        workers=cores,
                        images=count,
                        partition_size=partition_size,
                        components=components,
                    )
                    groups.setdefault(count, []).append(case)
    name = ", ".join(scenarios)
    return tuple(Group(f"{name} {count:,}", tuple(cases), repeats) for count, cases in groups.items())
