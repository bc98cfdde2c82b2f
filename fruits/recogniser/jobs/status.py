"""The content of a folder that a training wrote, complete or not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fruits.errors import OutputError
from fruits.recogniser.files import JSON, read_recogniser
from fruits.storage.commits import last_commit
from fruits.storage.folder import Folder

__all__ = ["RecogniserStatus", "recogniser_status"]


@dataclass(frozen=True, slots=True)
class RecogniserStatus:
    """A stored recogniser.

    Attributes
    ----------
    out : str
        The folder.
    complete : bool
        False if a training on the folder has not finished; the other values are those of the recogniser before.
    version : str or None
        None if no training has finished.
    classes, images, prototypes, calibration_images : int
        The number of classes, training images, prototypes, and held-out images that the thresholds were chosen on.
    crops : int
        Crops of each image.
    network : mapping of str to str
        ``backbone``, ``engine``, ``weights`` and ``decoding``.
    sources : tuple of mappings
        ``address``, ``images``, ``rejects`` and ``weight`` of each source.
    """

    out: str
    complete: bool
    version: str | None = None
    classes: int = 0
    images: int = 0
    prototypes: int = 0
    calibration_images: int = 0
    crops: int = 0
    network: Mapping[str, str] | None = None
    sources: tuple[Mapping[str, Any], ...] = ()


def recogniser_status(out: str) -> RecogniserStatus | None:
    """Return the content of the folder of a recogniser, or None for any other folder.

    Raises
    ------
    OutputError
        The folder cannot be read, or its last commit is corrupt.
    ModelError
        The recogniser is corrupt.
    """
    folder = Folder.at(out)
    try:
        commit, is_stored = last_commit(folder), folder.exists(JSON)
    except OSError as error:
        raise OutputError(
            f"{out}: {error.strerror or error}. Give the `out` of a training that can be read."
        ) from error
    if not is_stored and (commit is None or commit.job["command"] != "train"):
        return None
    complete = commit is None or commit.complete  # without a commit, the files of the recogniser were copied
    if not is_stored:
        return RecogniserStatus(folder.address, complete=False)
    stored = read_recogniser(folder)
    return RecogniserStatus(
        folder.address,
        complete,
        stored.version,
        classes=len(stored.labels),
        images=sum(stored.counts.values()),
        prototypes=len(stored.arrays["classes"]),
        calibration_images=stored.calibration_images,
        crops=stored.crops,
        network=stored.network,
        sources=tuple(
            {name: source[name] for name in ("address", "images", "rejects", "weight")} for source in stored.sources
        ),
    )
