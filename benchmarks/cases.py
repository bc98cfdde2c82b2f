"""A case, one thing to measure, and a group of cases to compare."""

from __future__ import annotations

from dataclasses import dataclass

PARTITIONED = ("featurize", "fit", "transform", "run")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A scenario with its backend and size.

    Attributes
    ----------
    scenario : str
        Key of :data:`benchmarks.scenarios.SCENARIOS`.
    backend : str
        One of the scenario's backends: ``dask``, ``spark``, ``local``, a solver's library or a peer.
    workers : int
        Number of cores to use.
    images : int
        Number of images, rows or keys.
    partition_size : int, default 512
        Images per partition. Half of the default of ``fruits run``, so that the last partitions keep all workers busy.
    components : int, default 200
        PCA components.
    megapixels : float, default 0
        Size to which the images are enlarged; 0: as they are.
    """

    scenario: str
    backend: str
    workers: int
    images: int
    partition_size: int = 512
    components: int = 200
    megapixels: float = 0

    @property
    def name(self) -> str:
        """Readable name without the number of images: ``featurize on dask, 2 workers``."""
        work = self.scenario if self.scenario.endswith(self.backend) else f"{self.scenario} on {self.backend}"
        size = f" at {self.megapixels:g} MP" if self.megapixels else ""
        return f"{work}{size}, {self.workers} worker{'s' if self.workers != 1 else ''}"

    @property
    def idle(self) -> str:
        """Warning if there are fewer partitions than workers; empty otherwise, and for work without partitions."""
        partitions = -(-self.images // self.partition_size)
        if self.scenario not in PARTITIONED or partitions >= self.workers:
            return ""
        return (
            f"{self.name}: {self.images:,} images in {partitions} partition{'s' if partitions != 1 else ''} of "
            f"{self.partition_size}, so that {self.workers - partitions} of the workers idle. Give a smaller "
            "--partition-size or more images."
        )


@dataclass(frozen=True, slots=True)
class Group:
    """Cases that are run in turn (A B C A B C) and compared.

    Attributes
    ----------
    name : str
        Name in records and reports.
    cases : tuple of Case
        The first one is the baseline.
    repeats : int, default 5
        Runs of each case.
    control : bool, default True
        Run the baseline twice in each turn (A B A' A B A'). The difference between A and A' is the noise.
    """

    name: str
    cases: tuple[Case, ...]
    repeats: int = 5
    control: bool = True

    def turns(self) -> list[tuple[Case, int, bool]]:
        """Return every run in order: its case, its repeat from 0, and True for a control run."""
        control = [(self.cases[0], True)] if self.control else []
        turn = [(case, False) for case in self.cases] + control
        return [(case, repeat, is_control) for repeat in range(self.repeats) for case, is_control in turn]
