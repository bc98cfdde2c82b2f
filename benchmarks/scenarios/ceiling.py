"""The network alone, on decoded pixels in memory, on all cores: what no pipeline can beat."""

from __future__ import annotations

from benchmarks.child import Done, Task
from benchmarks.scenarios.plain_processes import run_processes

BACKENDS = ("processes",)
DATA = "images"
ANSWER = "features"


def run(task: Task) -> Done:
    """Decode the images first, which is not measured, and then featurize them, a process a core."""
    return run_processes(task, decoded_before=True)
