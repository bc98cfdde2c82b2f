"""Processes that tests observe from outside."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress

import psutil


def is_running(process: psutil.Process) -> bool:
    """Return False for a process that has ended, also before its parent, such as the first of a container, reaps it."""
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def ended(processes: Iterable[psutil.Process], *, seconds: float = 60.0) -> bool:
    """Wait until processes end; return False if one still runs after `seconds`."""
    end = time.monotonic() + seconds
    while (running := [process for process in processes if is_running(process)]) and time.monotonic() < end:
        time.sleep(0.01)
    return not running


def listening(process: psutil.Process) -> list[tuple[str, int]]:
    """Return the addresses and ports on which a process accepts connections; none if it has ended."""
    with suppress(psutil.NoSuchProcess):
        found = [each.laddr for each in process.net_connections("inet") if each.status == psutil.CONN_LISTEN]
        return [(address.ip.removeprefix("::ffff:"), address.port) for address in found]
    return []
