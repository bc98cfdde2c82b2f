"""Backends (engines that run tasks) and clouds (where clusters are started), by name.

``backends.spark`` and ``backends.dask`` also add features to DataFrames.
"""

from backends import dask, spark
from backends.registry import BACKENDS, CLOUDS, load, load_cloud

__all__ = ["BACKENDS", "CLOUDS", "dask", "load", "load_cloud", "spark"]
