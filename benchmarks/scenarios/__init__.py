"""The scenarios: one kind of work each, which several backends or tools can do.

To add one, write a module with a function ``run(task)`` that does the work of a
:class:`~benchmarks.scenarios.task.Task` and returns its :class:`~benchmarks.scenarios.task.Timings`, and add it to
:data:`SCENARIOS`. Each run has its own process.
"""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from typing import Literal

from benchmarks.cases import Case
from benchmarks.scenarios.task import Task, Timings
from fruits.errors import SettingsError

ENGINES = ("dask", "spark", "local")
SOLVERS = (*ENGINES, "dask-ml", "spark-ml", "scikit-learn")
PROCESSES = ("processes",)


@dataclass(frozen=True, slots=True)
class Scenario:
    """A kind of work that can be measured.

    Attributes
    ----------
    module : str
        Module of this package with its ``run``, imported on first use.
    backends : tuple of str
        Backends that can run it, the default first.
    data : {"images", "features", "keys"}
        Input: image files, generated features, or generated keys of an object store.
    answer : {"features", "model", "rows", "plan", "csv"}
        Output, which :mod:`benchmarks.answers.check` compares with the reference.
    """

    module: str
    backends: tuple[str, ...]
    data: Literal["images", "features", "keys"]
    answer: Literal["features", "model", "rows", "plan", "csv"]

    def run(self, task: Task) -> Timings:
        """Do the work of a task and return its timings."""
        timings: Timings = importlib.import_module(f"{__name__}.{self.module}").run(task)
        return timings


EQUAL = {"peer-ray-openvino": "ray_openvino", "peer-spark-openvino": "spark_openvino"}  # the network of Fruits
PEERS = {"peer-notebook": "notebook", "peer-tfdata": "tfdata", "peer-ray": "ray", "peer-daft": "daft", **EQUAL}
SCENARIOS = {
    "featurize": Scenario("featurize", ENGINES, "images", "features"),
    "fit": Scenario("jobs", ENGINES, "images", "model"),
    "transform": Scenario("jobs", ENGINES, "images", "rows"),
    "run": Scenario("jobs", ENGINES, "images", "rows"),
    "first-image": Scenario("first_image", ENGINES, "images", "features"),
    "ceiling": Scenario("plain_loops", PROCESSES, "images", "features"),
    "bare-loop": Scenario("plain_loops", PROCESSES, "images", "features"),
    "plan": Scenario("plan", ("driver",), "keys", "plan"),
    "plan-manifest": Scenario("plan", ("driver",), "keys", "plan"),
    "moments": Scenario("moments", SOLVERS, "features", "model"),
    "csv": Scenario("csv_rows", ("local",), "features", "csv"),
    **{name: Scenario("peers", (peer,), "images", "features") for name, peer in PEERS.items()},
    **{f"run-{name}": Scenario("peers", (peer,), "images", "features") for name, peer in PEERS.items()},
}


def load(name: str) -> Scenario:
    """Return the scenario called `name`, with its module imported.

    Raises
    ------
    SettingsError
        `name` is not a scenario.
    """
    scenario = SCENARIOS.get(name)
    if scenario is None:
        raise SettingsError(f"--scenario {name}: unknown. Allowed: {', '.join(SCENARIOS)}.")
    importlib.import_module(f"{__name__}.{scenario.module}")
    return scenario


def missing(case: Case) -> str:
    """Return which packages a case needs and this environment lacks, as a message; empty if the case can run."""
    from backends import BACKENDS
    from benchmarks.scenarios import moments, peers

    required: tuple[str, ...]
    if case.scenario.removeprefix("run-") in PEERS:
        required = peers.load_peer(case.backend).REQUIRES
    elif case.scenario == "moments":
        required = moments.REQUIRES.get(case.backend, ())
    else:
        required = BACKENDS[case.backend].requires if case.backend in BACKENDS else ()
    absent = [name for name in required if importlib.util.find_spec(name) is None]
    return f"not installed: {', '.join(absent)}" if absent else ""
