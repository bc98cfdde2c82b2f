"""The images of a listing."""

from __future__ import annotations

import posixpath
from typing import NamedTuple

__all__ = ["ImageEntry"]


class ImageEntry(NamedTuple):
    """An image of a listing.

    Attributes
    ----------
    path : str
        Path below the root, with ``/``.
    size : int
        Size in bytes; -1 if unknown.
    version : str
        A value that changes when the image is rewritten: the modification time on a local disk, the ETag on S3, either
        of them elsewhere; empty if unknown.
    """

    path: str
    size: int
    version: str = ""

    @property
    def label(self) -> str | None:
        """Name of the folder that contains the image; None for an image directly in the root."""
        return posixpath.basename(posixpath.dirname(self.path)) or None

    @property
    def leads_out(self) -> bool:
        """True if the path, used as a file path, leads out of the root, as keys of S3 can."""
        return self.path.startswith("/") or ".." in self.path.split("/")
