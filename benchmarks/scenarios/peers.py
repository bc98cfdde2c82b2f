"""Other tools doing the same job: ``peer-daft`` computes features, ``run-peer-daft`` also fits and writes rows."""

from __future__ import annotations

import importlib
from typing import Protocol, cast

from benchmarks.peers import Run
from benchmarks.scenarios.task import Task, Timings


class Peer(Protocol):
    """A module of :mod:`benchmarks.peers`."""

    REQUIRES: tuple[str, ...]
    run: Run


def load_peer(name: str) -> Peer:
    """Return the module of a peer."""
    return cast(Peer, importlib.import_module(f"benchmarks.peers.{name}"))


def run(task: Task) -> Timings:
    """Run the peer; fit the PCA and write rows only in the whole-job scenarios."""
    case = task.case
    components = case.components if case.scenario.startswith("run-") else None
    seconds = load_peer(case.backend).run(task.data, task.out, workers=case.workers, components=components)
    seconds["start-up"] = seconds.pop("start")
    return Timings(seconds=seconds)
