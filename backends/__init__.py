"""The engines that Fruits runs on, by name; each is imported only when it is asked for."""

from __future__ import annotations

import importlib
import importlib.util
from typing import NamedTuple

from fruits.errors import SettingsError
from fruits.executor import Executor

__all__ = ["BACKENDS", "Backend", "load"]


class Backend(NamedTuple):
    """Where an executor class lives, and what has to be installed for it."""

    module: str
    executor: str
    requires: str | None  # the importable name that tells whether the engine is installed
    extra: str | None  # the extra of this package that brings it


BACKENDS = {
    "dask": Backend("backends.dask", "DaskExecutor", "distributed", "dask"),
    "spark": Backend("backends.spark", "SparkExecutor", "pyspark", "spark"),
    "local": Backend("backends.local", "LocalExecutor", None, None),
}


def load(name: str) -> type[Executor]:
    """Return the executor class of the backend `name`.

    Raises
    ------
    SettingsError
        No backend has that name, or what it needs is not installed.
    """
    if name not in BACKENDS:
        raise SettingsError(f"--backend {name}: no such backend. Allowed: {', '.join(BACKENDS)}.")
    backend = BACKENDS[name]
    if backend.requires is not None and importlib.util.find_spec(backend.requires) is None:
        raise SettingsError(
            f"--backend {name}: {backend.requires} is not installed. "
            f"Install it with: pip install 'fruits[{backend.extra}]', or choose another backend: "
            f"{', '.join(other for other in BACKENDS if other != name)}."
        )
    executor: type[Executor] = getattr(importlib.import_module(backend.module), backend.executor)
    return executor
