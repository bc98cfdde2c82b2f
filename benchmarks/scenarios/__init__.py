"""What is measured: every module here is one scenario, with

``BACKENDS``
    what it can be run on, the first of which is taken where nothing is asked for;
``DATA``
    what it works on: ``images``, ``features`` (generated) or ``keys`` (that exist only while they are listed);
``ANSWER``
    what it leaves in its output folder to be checked: ``features``, ``model``, ``rows``, ``plan`` or ``csv``;
``run(task)``
    which does it, in a process of its own, and returns the seconds by stage.
"""  # noqa: D400

from __future__ import annotations

import importlib
import importlib.util
from typing import Protocol, cast

from benchmarks.cases import Case
from benchmarks.child import Done, Task
from fruits.errors import SettingsError

__all__ = ["SCENARIOS", "Scenario", "load", "missing"]

PEERS = {"peer-notebook": "notebook", "peer-tfdata": "tfdata", "peer-ray": "ray", "peer-daft": "daft"}
SCENARIOS = {
    "featurize": "featurize",
    "fit": "fit",
    "transform": "transform",
    "run": "whole_run",
    "first-image": "first_image",
    "ceiling": "ceiling",
    "bare-loop": "bare_loop",
    "plan": "plan",
    "moments": "moments",
    "csv": "csv_rows",
    **dict.fromkeys(PEERS, "peers"),
    **{f"run-{peer}": "peers" for peer in PEERS},
}


class Scenario(Protocol):
    """What every module here offers."""

    BACKENDS: tuple[str, ...]
    DATA: str
    ANSWER: str

    def run(self, task: Task) -> Done:
        """Do it, and return the seconds by stage."""
        ...


def load(name: str) -> Scenario:
    """Return the module of the scenario `name`.

    Raises
    ------
    SettingsError
        There is no such scenario.
    """
    if name not in SCENARIOS:
        raise SettingsError(f"--scenario {name}: not known. Allowed: {', '.join(SCENARIOS)}.")
    return cast(Scenario, importlib.import_module(f"benchmarks.scenarios.{SCENARIOS[name]}"))


def missing(case: Case) -> str:
    """Return why a case cannot be run here, because a package is not installed; empty where it can."""
    from backends import BACKENDS
    from benchmarks.scenarios import moments, peers

    required: tuple[str | None, ...]
    if case.scenario.removeprefix("run-") in PEERS:
        required = peers.module(case.scenario).REQUIRES
    elif case.scenario == "moments":
        required = moments.REQUIRES.get(case.backend, ())
    else:
        required = (BACKENDS[case.backend].requires,) if case.backend in BACKENDS else ()
    absent = [name for name in required if name is not None and importlib.util.find_spec(name) is None]
    return f"not installed: {', '.join(absent)}" if absent else ""
