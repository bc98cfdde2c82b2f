"""Invented records of a benchmark session, for tests of reports, statistics and goals."""

from __future__ import annotations

from functools import partial

from benchmarks.cases import Case
from benchmarks.record import Agreement, Machine, Record

MACHINE = Machine(cpu="A processor", cores=2, memory=16 * 10**9, system="Linux-6")
VERSIONS = {"python": "3.11.7", "fruits": "0.1.0", "dask": "2026.8.0"}
RIGHT = Agreement(what="features", verdict="identical", digest="0" * 64, cosine=1.0)
CLOSE = Agreement(what="features", verdict="close", digest="1" * 64, largest=1e-5, cosine=0.99999)
WRONG = Agreement(what="features", verdict="wrong", digest="2" * 64, largest=0.4, cosine=0.9, detail="a cosine of 0.9")


def record(
    scenario: str = "featurize",
    backend: str = "dask",
    *,
    rate: float = 350.0,
    group: str = "featurize",
    workers: int = 2,
    images: int = 5_240,
    repeat: int = 0,
    control: bool = False,
    answer: Agreement | None = RIGHT,
    stages: dict[str, float] | None = None,
    session: str = "20260101T000000Z",
    megapixels: float = 0,
    partition_size: int = 512,
    **others: object,
) -> Record:
    """Return the record of a run with `rate` images per second of work."""
    seconds = stages or {"listing": 0.01 * images / rate, "featurize": 0.99 * images / rate}
    seconds = {"start-up": 2.5 if backend == "dask" else 5.0, **seconds, "shutdown": 0.4}
    return Record(
        session=session,
        group=group,
        at="2026-01-01T12:00:00+00:00",
        commit="0123456789ab",
        command="fruits bench photos --out bench",
        versions=VERSIONS,
        machine=MACHINE,
        case=Case(
            scenario=scenario,
            backend=backend,
            workers=workers,
            images=images,
            partition_size=partition_size,
            megapixels=megapixels,
        ),
        repeat=repeat,
        control=control,
        answer=answer,
        seconds=seconds,
        wall=sum(seconds.values()),
        driver_peak=210 * 10**6,
        worker_peak=0 if backend in ("tfdata", "driver") else 320 * 10**6,
        cpu_seconds=2 * images / rate,
        load=0.4,
        **others,  # type: ignore[arg-type]
    )


def _add(
    records: list[Record], repeat: int, shake: float, scenario: str, backend: str, rate: float, **more: object
) -> None:
    records.append(record(scenario, backend, rate=rate * shake, repeat=repeat, **more))  # type: ignore[arg-type]


def session(repeats: int = 5) -> list[Record]:
    """Return the records of a session with all groups of the standard set, one wrong peer and one not installed."""
    records: list[Record] = []
    for repeat in range(repeats):
        shake = 1 + 0.01 * ((repeat * 7) % 5 - 2)

        add = partial(_add, records, repeat, shake)

        for scenario, backend, rate in (
            ("featurize", "dask", 352),
            ("featurize", "spark", 346),
            ("bare-loop", "processes", 371),
            ("ceiling", "processes", 410),
        ):
            add(scenario, backend, rate)
        add("featurize", "dask", 350, control=True)
        for scenario, backend, rate, answer in (
            ("featurize", "dask", 345, RIGHT),
            ("featurize", "spark", 338, RIGHT),
            ("peer-notebook", "notebook", 59, CLOSE),
            ("peer-tfdata", "tfdata", 122, CLOSE),
            ("peer-daft", "daft", 900, WRONG),
        ):
            add(scenario, backend, rate, group="other tools", images=1_048, answer=answer)
        for backend, rate in (("dask", 183), ("spark", 179)):
            add("featurize", backend, rate, group="one worker", workers=1, images=1_048)
            add("featurize", backend, rate * 1.93, group="growth", images=10_480)
            rest = {"featurize": 1_048 / (2 * rate), "fit": 0.7, "write": 1.1}
            add("run", backend, rate, group="whole jobs", images=1_048, stages=rest)
            add("first-image", backend, 2.0, group="first image", images=1)
        rest = {"featurize": 18.0, "fit": 6.5, "write": 3.2}
        add("run-peer-notebook", "notebook", 1, group="whole jobs", images=1_048, stages=rest, answer=CLOSE)
        solvers = (("dask", 0.9), ("spark", 1.2), ("dask-ml", 9.5), ("spark-ml", 8.8), ("scikit-learn", 4.0))
        for backend, taken in solvers:
            add("moments", backend, 1, group="solvers 5,000", images=5_000, stages={"fit": taken * shake})
        add("plan", "driver", 250_000, group="plan", workers=1, images=1_000_000)
    absent = record("peer-ray", "ray", group="other tools", images=1_048, status="not run", reason="not installed: ray")
    return [*records, absent]
