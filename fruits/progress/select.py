"""The choice of a progress listener for this process."""

from __future__ import annotations

import os
import sys

from fruits.progress.json_log import JsonLog
from fruits.progress.lines import Lines
from fruits.progress.reporter import Progress, Silent


def default() -> Progress:
    """Return the listener of the Python API: a bar in a notebook, and none elsewhere."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    if shell is None or not hasattr(shell, "kernel"):  # a terminal, also that of IPython
        return Silent()
    from IPython.display import display

    from fruits.progress.notebook import Notebook

    return Notebook(display)


def to_stderr(*, quiet: bool = False, log_json: bool = False) -> Progress:
    """Return the listener for stderr: the JSON log or none as requested, else a bar on a terminal, else lines."""
    if log_json:
        return JsonLog()
    if quiet:
        return Silent()
    if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        from fruits.progress.terminal import Terminal

        return Terminal()
    return Lines()
