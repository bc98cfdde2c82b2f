"""The content of a folder that a training wrote, complete or not, and the state of its sources.

The commit of a training states the list of images and the moments of every source, and the output that its features are
in. An update of such an output does not know its recognisers, so that the recogniser has to look.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from fruits.errors import FruitsError, OutputError
from fruits.images.sources.kinds import stored_source
from fruits.images.sources.listing import Listing
from fruits.jobs.stored import StoredJob
from fruits.plan.pages import write_list
from fruits.recogniser.files import JSON, read_recogniser
from fruits.storage.commits import Commit, last_commit
from fruits.storage.folder import Folder

SourceState = Literal["current", "stale", "unknown"]


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
        ``address``, ``images``, ``rejects`` and ``weight`` of each source, and its ``state``; see
        :func:`source_states`.
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


def recogniser_status(out: str, *, list_images: bool = False) -> RecogniserStatus | None:
    """Return the content of the folder of a recogniser, or None for any other folder.

    Parameters
    ----------
    out : str
    list_images : bool, default False
        As in :func:`source_states`.

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
        raise OutputError(f"{out}: {error.strerror or error}. Give the `out` of a command that can be read.") from error
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
            {name: source[name] for name in ("address", "images", "rejects", "weight")} | {"state": state}
            for source, state in zip(
                stored.sources, source_states(commit, len(stored.sources), list_images=list_images), strict=True
            )
        ),
    )


def source_states(commit: Commit | None, count: int, *, list_images: bool = False) -> list[SourceState]:
    """Return whether the sources of a training have changed since.

    Parameters
    ----------
    commit : Commit or None
        The last commit of the recogniser; None for a copy without commits.
    count : int
        The number of sources.
    list_images : bool, default False
        Also list the images of each source, and compare them with the list that its features were computed from.

    Returns
    -------
    list of {"current", "stale", "unknown"}
        ``stale``: the output with its features has other rows, or, with `list_images`, images were added, changed or
        deleted. ``unknown``: the output or the images cannot be read, or are being updated, or the training is not
        complete.
    """
    if commit is None or not commit.complete:
        return ["unknown"] * count
    return [_state(commit.job, number, list_images) for number in range(count)]


def stale_sources(recogniser: str) -> list[str]:
    """Return the images of the sources of a recogniser whose stored features have changed since; none of a copy."""
    try:
        commit = last_commit(Folder.at(recogniser))
    except OutputError:  # a corrupt commit, without which a recogniser can be used
        return []
    sources = commit.job["sources"].values() if commit is not None and commit.job["command"] == "train" else ()
    states = source_states(commit, len(sources))
    return [str(source["images"]) for source, state in zip(sources, states, strict=True) if state == "stale"]


def _state(training: Mapping[str, Any], number: int, list_images: bool) -> SourceState:
    try:
        trained = training["sources"][str(number + 1)]
        folder = Folder.at(training["outputs"][number])
        commit = last_commit(folder)
        if commit is None or not commit.complete:
            return "unknown"
        moments = StoredJob.load(folder, commit).moments_digest
        if (commit.job["list"], moments) != (trained["list"], trained["moments"]):
            return "stale"
        return "current" if not list_images or _lists_the_same(commit.job) else "stale"
    except (FruitsError, OSError, LookupError, TypeError):  # commits may come from someone else
        return "unknown"


def _lists_the_same(job: Mapping[str, Any]) -> bool:
    """Return whether the images of a job are those that it listed."""
    listing = Listing(stored_source(job), limit=job["limit"], sample=job.get("sample"), seed=job.get("seed", 0))
    found: str = write_list(listing.tables()).digest
    return found == str(job["list"]["digest"])
