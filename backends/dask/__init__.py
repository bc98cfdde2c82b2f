"""The Dask backend: the executor of jobs, and columns of DataFrames. Dask is imported on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from backends.dask.frames import features, transform

__all__ = ["features", "transform"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from backends.dask import frames

    return getattr(frames, name)
