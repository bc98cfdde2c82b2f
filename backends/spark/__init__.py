"""The Spark backend: the executor of jobs, and columns of DataFrames. PySpark is imported on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backends.registry import imported_on_use

if TYPE_CHECKING:
    from backends.spark.frames import features, transform

__all__ = ["features", "transform"]
__getattr__ = imported_on_use("backends.spark.frames", __all__)
