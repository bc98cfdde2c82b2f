"""Performance goals, computed from the records that have the needed cases."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from benchmarks.record import Record
from benchmarks.report.summary import Side, sides

OURS = ("dask", "spark")
LARGE = 5_000  # least images for judging rates and growth: below, the start of a run weighs too much
GROWTH = 2.0  # least ratio of images for judging growth


@dataclass(frozen=True, slots=True)
class Goal:
    """A goal and the measured figure.

    Attributes
    ----------
    name : str
    measured, least, stretch : float
        The measured figure, the goal and the stretch goal.
    unit : str
        ``x``: a ratio; ``%``: a share; ``s``: seconds; ``GB``.
    at_most : bool
        True if a small figure is good.
    on : str
        Number of images, rows or keys of the measurement.
    enough : bool
        False if the goal was set for a larger number, or the figure is not a median of several runs; it is then shown
        without a judgement.
    """

    name: str
    measured: float
    least: float
    stretch: float
    unit: str
    at_most: bool
    on: str
    enough: bool = True

    @property
    def met(self) -> str:
        """``stretch``, ``met`` or ``short``; ``fewer`` if the measurement is too small to be judged."""
        if not self.enough:
            return "fewer"
        for name, bound in (("stretch", self.stretch), ("met", self.least)):
            if self.measured <= bound if self.at_most else self.measured >= bound:
                return name
        return "short"


def goals(records: Sequence[Record]) -> list[Goal]:
    """Return the goals that can be computed, each on the largest number of images that its sides share."""
    known = [
        side
        for side in sides(records)
        if side.ranked and side.done and not side.records[0].cold and not side.case.megapixels
    ]
    return [
        *_speeds(known, "featurize", "bare-loop", 0.93, 0.98, least_images=LARGE),
        *_speeds(known, "featurize", "ceiling", 0.80, 0.90, least_images=LARGE),
        *_speeds(known, "featurize", "peer-ray-openvino", 1, 1.2, least_images=LARGE),
        *_speeds(known, "featurize", "peer-spark-openvino", 1, 1.2, least_images=LARGE),
        *_speeds(known, "featurize", "peer-tfdata", 2.5, 3, least_images=LARGE),
        *_speeds(known, "featurize", "peer-daft", 3.5, 4.5, least_images=LARGE),
        *_speeds(known, "featurize", "peer-notebook", 5, 7, least_images=LARGE),
        *_speeds(known, "featurize", "peer-ray", 6, 8, least_images=LARGE),
        *_speeds(known, "run", "run-peer-notebook", 5, 8, whole=True, least_images=20_000),
        *_solvers(known),
        *_growth(known),
        *_seconds(known, "plan", "planning {on} keys", _work, 120, 60, "s", 10_000_000),
        *_seconds(
            known, "plan", "memory for planning {on} keys", lambda r: r.driver_peak / 1e9, 4, 2, "GB", 10_000_000
        ),
        *_first_image(known),
        *_beyond_featurize(known),
        *_seconds(known, "csv", "CSV, all columns of {on} rows", _work, 20, 8, "s", 5_000),
    ]


def _are_medians(*compared: Side) -> bool:
    return all(len(side.done) > 1 for side in compared)


def _work(record: Record) -> float:
    return record.work


def _wall(record: Record) -> float:
    return record.wall


def _pairs(known: Sequence[Side], first: str, second: str) -> Iterator[tuple[Side, Side]]:
    """Yield, for Dask and Spark, the sides of scenarios `first` and `second` of one group, the largest such pair."""
    for backend in OURS:
        found = [
            (one, other)
            for one in known
            if one.case.scenario == first and one.case.backend == backend
            for other in known
            if other.case.scenario == second
            and other.case.backend in (backend, *({other.case.backend} - set(OURS)))
            and (one.group, one.case.images, one.case.workers) == (other.group, other.case.images, other.case.workers)
        ]
        if found:
            yield max(found, key=lambda pair: (pair[0].case.images, pair[0].case.workers))


def _speeds(
    known: Sequence[Side],
    ours: str,
    theirs: str,
    least: float,
    stretch: float,
    *,
    whole: bool = False,
    least_images: int = 0,
) -> Iterator[Goal]:
    figure = _wall if whole else _work
    for one, other in _pairs(known, ours, theirs):
        ratio = other.spread(figure).median / one.spread(figure).median
        name = f"{ours} on {one.case.backend} ÷ {theirs}{', start-up included' if whole else ''}"
        images = one.case.images
        yield Goal(
            name, ratio, least, stretch, "x", False, f"{images:,}", images >= least_images and _are_medians(one, other)
        )


def _solvers(known: Sequence[Side]) -> Iterator[Goal]:
    for backend, native in (("spark", "spark-ml"), ("dask", "dask-ml")):
        found = {
            (side.case.backend, side.case.images): side.spread(_work).median
            for side in known
            if side.case.scenario == "moments"
        }
        for rows in sorted({rows for name, rows in found if (native, rows) in found and name == backend})[-1:]:
            ratio = found[native, rows] / found[backend, rows]
            yield Goal(f"exact fit on {backend} ÷ {native}", ratio, 8, 20, "x", False, f"{rows:,}", rows >= 67_000)


def _growth(known: Sequence[Side]) -> Iterator[Goal]:
    figures: tuple[tuple[str, float, Callable[[Record], float]], ...] = (
        ("seconds per 1,000 images", 0.05, lambda record: record.work / record.case.images),
        ("peak memory of the driver", 0.10, lambda record: record.driver_peak),
        ("peak memory of the largest worker", 0.10, lambda record: record.worker_peak),
    )
    for backend in OURS:
        found = [side for side in known if (side.case.scenario, side.case.backend) == ("featurize", backend)]
        found = [side for side in found if side.case.images >= LARGE and side.case.workers == _most_workers(found)]
        found.sort(key=lambda side: side.case.images)
        if found and found[-1].case.images >= GROWTH * found[0].case.images:
            on = f"{found[0].case.images:,} → {found[-1].case.images:,}"
            for name, least, figure in figures:
                small, large = (side.spread(figure).median for side in (found[0], found[-1]))
                enough = found[-1].case.images >= 80_000 and _are_medians(found[0], found[-1])
                yield Goal(f"{name} on {backend}, growth", large / small - 1, least, least, "%", True, on, enough)


def _most_workers(found: Sequence[Side]) -> int:
    return max(side.case.workers for side in found)


def _first_image(known: Sequence[Side]) -> Iterator[Goal]:
    for backend, least, stretch in (("dask", 6, 3), ("spark", 12, 8)):
        for side in known:
            if (side.case.scenario, side.case.backend) == ("first-image", backend):
                seconds = side.spread(lambda record: record.seconds["start-up"] + record.work).median
                yield Goal(f"from command to first image on {backend}", seconds, least, stretch, "s", True, "1")


def _beyond_featurize(known: Sequence[Side]) -> Iterator[Goal]:
    for one, other in _pairs(known, "featurize", "transform"):
        share = other.spread(_work).median / one.spread(_work).median - 1
        name = f"transform on {one.case.backend}: time beyond featurize"
        yield Goal(name, share, 0.10, 0.05, "%", True, f"{one.case.images:,}")


def _seconds(
    known: Sequence[Side],
    scenario: str,
    name: str,
    figure: Callable[[Record], float],
    least: float,
    stretch: float,
    unit: str,
    least_images: int,
) -> Iterator[Goal]:
    found = [side for side in known if side.case.scenario == scenario]
    if found:
        side = max(found, key=lambda side: side.case.images)
        on = f"{side.case.images:,}"
        yield Goal(
            name.format(on=on),
            side.spread(figure).median,
            least,
            stretch,
            unit,
            True,
            on,
            side.case.images >= least_images and _are_medians(side),
        )
