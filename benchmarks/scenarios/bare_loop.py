"""Read, decode, network, in plain processes with no engine: what an engine's own work is measured against."""

from __future__ import annotations

from benchmarks.child import Done, Task
from benchmarks.scenarios.plain_processes import run_processes

BACKENDS = ("processes",)
DATA = "images"
ANSWER = "features"


def run(task: Task) -> Done:
    """Featurize the images, a process a core, each with its share of the files."""
    return run_processes(task, decoded_before=False)
