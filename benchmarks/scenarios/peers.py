"""What users do today, by the name of the scenario: ``peer-daft`` featurizes, ``run-peer-daft`` does the whole job."""

from __future__ import annotations

import importlib
from typing import Protocol, cast

from benchmarks.child import Done, Task
from benchmarks.peers import Run

BACKENDS = ("notebook", "tfdata", "ray", "daft")
DATA = "images"
ANSWER = "features"


class Peer(Protocol):
    """What every module of :mod:`benchmarks.peers` offers."""

    REQUIRES: tuple[str, ...]
    run: Run


def module(scenario: str) -> Peer:
    """Return the module that a scenario runs."""
    return cast(Peer, importlib.import_module(f"benchmarks.peers.{scenario.rpartition('-')[2]}"))


def run(task: Task) -> Done:
    """Run the peer; with PCA and rows where the scenario is the whole job."""
    case = task.case
    whole = case.scenario.startswith("run-")
    components = case.components if whole else None
    seconds = module(case.scenario).run(task.data, task.out, workers=case.workers, components=components)
    seconds["start-up"] = seconds.pop("start")
    return Done(seconds=seconds)
