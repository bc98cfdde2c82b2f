"""Sets of groups: ``quick`` takes minutes, ``standard`` about 40 minutes and ``full`` about 2.5 hours on 2 cores.

Every case is run at least three times. Times in minutes on 2 cores, checks included, at 170 (`standard`) and 230
(`full`) images/s; those of the whole `full` and of the peers with OpenVINO are estimates from the time per run.

=========== ============================================================================================== =======
standard    runs                                                                                           minutes
=========== ============================================================================================== =======
featurize   2,048 images: Dask twice, Spark, two peers with OpenVINO, bare loop, ceiling; 5 repeats             12
other tools 1,024 images: Dask twice, Spark, transform on both, four peers with Keras; 3 repeats                13
one worker  1,024 images: Dask, Spark; 3 repeats                                                               1.5
growth      8,192 images: Dask, Spark; 3 repeats                                                               4.5
whole jobs  1,024 images: run and fit on Dask and Spark; 3 repeats                                             2.5
first image Dask, Spark; 5 repeats                                                                             0.5
solvers     5,000 rows: exact on three backends, dask-ml, Spark ML, scikit-learn; 3 repeats                    3.5
plan, csv   1,000,000 keys; 5,000 rows; 5 repeats                                                                1
=========== ============================================================================================== =======

``full`` uses the sizes of :mod:`benchmarks.report.goals`. Groups that are compared with each other are adjacent:

=========== ============================================================================================== =======
full        runs                                                                                           minutes
=========== ============================================================================================== =======
featurize   5,120 images: Dask twice, Spark, transform on both, two peers with OpenVINO, bare loop,             20
            ceiling; 5 repeats
growth      83,968 images: Dask, Spark; 3 repeats                                                               39
first image Dask, Spark; 5 repeats                                                                               1
one worker  1,024 images: Dask, Spark; 5 repeats                                                               2.5
plan, csv   10,000,000 keys; 5,000 rows; 3 and 5 repeats                                                         3
solvers     5,000, 20,000 and 67,692 rows, as above; 3 repeats                                                  12
other tools 5,120 images: Dask twice, Spark, four peers with Keras; 3 repeats                                   18
whole jobs  21,504 images: run on Dask and Spark, run by peer-notebook; 3 repeats                               45
=========== ============================================================================================== =======

Numbers of images are multiples of 1,024, which is two partitions: with an odd number of partitions, one of two workers
would idle at the end, for a share of the time that larger jobs do not have.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

from benchmarks.cases import Case, Group
from benchmarks.scenarios import EQUAL, PEERS, load
from fruits.errors import SettingsError
from fruits.plan.partitions import default_size

OURS = ("dask", "spark")
SOLVERS = ("dask", "spark", "local", "dask-ml", "spark-ml", "scikit-learn")
PLAIN = (*EQUAL, "bare-loop", "ceiling")  # with the network and the decoding of Fruits
OTHERS = tuple(peer for peer in PEERS if peer not in EQUAL)
DEFAULT_IMAGES = {"plan": 1_000_000, "plan-manifest": 1_000_000, "moments": 20_000, "csv": 5_000, "first-image": 1}


def _both(scenario: str, workers: int, images: int) -> tuple[Case, ...]:
    return tuple(Case(scenario=scenario, backend=name, workers=workers, images=images) for name in OURS)


def _alone(names: Sequence[str], workers: int, images: int) -> tuple[Case, ...]:
    return tuple(Case(scenario=name, backend=load(name).backends[0], workers=workers, images=images) for name in names)


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
        Group("other tools", (*ours, *_alone(OTHERS, workers, 1_024)), repeats=3),
        Group("one worker", _both("featurize", 1, 1_024), repeats=3, control=False),
        Group("growth", _both("featurize", workers, 8_192), repeats=3, control=False),
        Group("whole jobs", jobs, repeats=3, control=False),
        Group("first image", _both("first-image", workers, 1), control=False),
        Group("solvers", _solvers(workers, 5_000), repeats=3),
        Group("plan", _alone(("plan",), 1, 1_000_000), control=False),
        Group("csv", _alone(("csv",), 1, 5_000), control=False),
    )


def _full(workers: int) -> tuple[Group, ...]:
    tools = (*_both("featurize", workers, 5_120), *_alone(OTHERS, workers, 5_120))
    ours = (*_both("featurize", workers, 5_120), *_both("transform", workers, 5_120))
    jobs = (*_both("run", workers, 21_504), *_alone(("run-peer-notebook",), workers, 21_504))
    return (
        Group("featurize", (*ours, *_alone(PLAIN, workers, 5_120))),
        Group("growth", _both("featurize", workers, 83_968), repeats=3, control=False),
        Group("first image", _both("first-image", workers, 1), control=False),
        Group("one worker", _both("featurize", 1, 1_024), control=False),
        Group("csv", _alone(("csv",), 1, 5_000), control=False),
        Group("plan", _alone(("plan",), 1, 10_000_000), repeats=3, control=False),
        *(Group(f"solvers {rows:,}", _solvers(workers, rows), repeats=3) for rows in (5_000, 20_000, 67_692)),
        Group("other tools", tools, repeats=3),
        Group("whole jobs", jobs, repeats=3, control=False),
    )


def _quick(workers: int) -> tuple[Group, ...]:
    return (
        Group("featurize", (*_both("featurize", workers, 1_024), *_alone(PLAIN, workers, 1_024)), repeats=3),
        Group("whole jobs", _both("run", workers, 1_024), repeats=3, control=False),
        Group("solvers 2,000", _solvers(workers, 2_000), repeats=3),
    )


SETS = {"standard": _standard, "full": _full, "quick": _quick}


def set_groups(name: str, workers: int) -> tuple[Group, ...]:
    """Return the groups of the set `name` for a number of workers.

    Raises
    ------
    SettingsError
        `name` is not a set.
    """
    if name not in SETS:
        raise SettingsError(f"--set {name}: unknown. Allowed: {', '.join(SETS)}.")
    return SETS[name](workers)


def named_groups(
    *,
    scenarios: Sequence[str],
    backends: Sequence[str],
    workers: Sequence[int],
    images: Sequence[int],
    repeats: int,
    partition_size: int | None,
    components: int,
    megapixels: Sequence[float] = (0,),
) -> tuple[Group, ...]:
    """Return one group for each number and each size of images, of the named scenarios on the named backends.

    Parameters
    ----------
    scenarios, backends : sequence of str
        A scenario that supports none of the backends runs on its default. Without `backends`: Dask and Spark.
    workers, images : sequence of int
        Without `images`, each scenario has its default, 5,240 for most of those on images.
    repeats, components : int
        Of every case.
    partition_size : int or None
        Of every case; None: that of a job on as many images and workers.
    megapixels : sequence of float
        Sizes to which images are enlarged; 0: as they are.

    Raises
    ------
    SettingsError
        A scenario is unknown, or a backend is supported by none of the scenarios.
    """
    supported = {name: load(name).backends for name in scenarios}
    if unsupported := [name for name in backends if not any(name in names for names in supported.values())]:
        allowed = ", ".join(sorted({name for names in supported.values() for name in names}))
        raise SettingsError(
            f"--backend {','.join(unsupported)}: not supported by {', '.join(scenarios)}. Allowed: {allowed}."
        )
    groups: dict[tuple[int, float], list[Case]] = {}
    for scenario in scenarios:
        chosen = [name for name in backends or OURS if name in supported[scenario]] or supported[scenario][:1]
        counts = images or (DEFAULT_IMAGES.get(scenario, 5_240),)
        for count, size, backend, cores in product(counts, megapixels, chosen, workers):
            case = Case(
                scenario=scenario,
                backend=backend,
                workers=cores,
                images=count,
                partition_size=partition_size or default_size(count, cores),
                components=components,
                megapixels=size,
            )
            groups.setdefault((count, size), []).append(case)
    title = ", ".join(scenarios)
    return tuple(
        Group(f"{title} {count:,}{f' at {size:g} MP' if size else ''}", tuple(cases), repeats)
        for (count, size), cases in groups.items()
    )
