"""The choice of a progress listener for this process."""

from __future__ import annotations

import os
import sys

from fruits.progress.json_log import JsonLog
from fruits.progress.lines import Lines
from fruits.progress.reporter import Progress, Silent


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
