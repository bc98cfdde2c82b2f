"""Backends (engines that run tasks) and clouds (where clusters are started), by name."""

from backends.registry import BACKENDS, CLOUDS, load, load_cloud

__all__ = ["BACKENDS", "CLOUDS", "load", "load_cloud"]
