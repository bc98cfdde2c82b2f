"""The identity of a job: the settings, stored in its commits, that determine every bit of its output.

A part of it is the identity of the features: the network, the decoding, and a fingerprint of the numbers that the
machine computes. Jobs with equal identities of features can use each other's features. The partitions and the backend
are in neither.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, fields
from typing import Any

from fruits.errors import FruitsError, OutputError
from fruits.images.decode import Decoding
from fruits.images.pasting import Backgrounds
from fruits.images.sources.entries import ImageEntry
from fruits.images.sources.options import SourceOptions
from fruits.jobs.job import FITTING, Job
from fruits.jobs.stored import StoredJob
from fruits.jobs.tasks.rows import Encoder
from fruits.model.fingerprint import numeric_fingerprint, solver_fingerprint
from fruits.network.backbones import backbone
from fruits.network.featurizer import NeuralNetwork
from fruits.plan.changes import describe_changes
from fruits.plan.pages import ImageList
from fruits.storage.commits import Commit
from fruits.storage.folder import Folder
from fruits.text import brief, utf8, without_secrets

SCHEMA = "fruits.job/2"
EXTENDED = {"command", "format", "columns"}  # settings in which a run differs from the fit that it continues
UPDATED = {"list.digest", "list.images"}
SOURCE_OPTIONS = {field.name for field in fields(SourceOptions)}
SHOWN = 20  # differences in a message; a job has fewer settings


def feature_identity(
    network: NeuralNetwork, decoding: Decoding, backgrounds: Backgrounds | None = None
) -> dict[str, Any]:
    """Return the identity of the features that a network computes on machines like this one."""
    return {
        "network": {"backbone": network.backbone, "engine": network.engine, "weights": network.weights_digest},
        "length": network.features,
        "decode": decoding.mode,
        "crops": decoding.crops,
        **({"backgrounds": backgrounds.digest} if backgrounds is not None else {}),
        "fingerprint": numeric_fingerprint(network.load(), backbone(network.backbone).size),
        "versions": {"pillow": importlib.metadata.version("pillow"), "engine": network.package},
    }


def describe(
    command: str,
    job: Job,
    images: ImageList,
    features: Mapping[str, Any],
    encoder: Encoder | None,
    source: StoredJob | None = None,
) -> dict[str, Any]:
    """Return the identity of a job: everything that determines its output, and thus neither backend nor partitions.

    Parameters
    ----------
    command : {"fit", "run", "transform", "predict"}
    job : Job
    images : ImageList
    features : mapping
        The identity of the features.
    encoder : Encoder or None
        The encoder of a transform or of predictions, or that of an update that keeps its model.
    source : StoredJob, optional
        The job whose stored features are used.
    """
    identity: dict[str, Any] = {"schema": SCHEMA, "command": command}
    if source is None:
        identity |= {
            "images": without_secrets(Folder.at(job.images).address),
            "limit": job.limit,
            "follow_links": job.follow_links,
            **({"sample": job.sample, "seed": job.seed} if job.sample is not None else {}),
            **job.source_options().given(),
        }
    else:
        identity |= {"source": without_secrets(source.owned.folder.address), "moments": source.moments_digest}
    identity |= {"list": asdict(images), "features": dict(features)}
    if command in FITTING:
        identity |= {"components": job.components, "solver": job.solver, "eigenvectors": solver_fingerprint()}
    if encoder is not None:
        identity |= encoder.identity()
    elif command == "run":
        identity |= {"format": job.format, "columns": list(job.columns)}
    identity["versions"] = versions()
    return identity


def versions() -> dict[str, str]:
    """Return the versions of the packages that turn features into a model and rows."""
    return {name: importlib.metadata.version(name) for name in ("fruits", "numpy")}


def is_same(stored: dict[str, Any], requested: dict[str, Any]) -> bool:
    """Return whether a stored identity equals the requested one."""
    return not any(_differences(stored, utf8(requested)))


def is_extension(stored: dict[str, Any], requested: dict[str, Any]) -> bool:
    """Return whether the requested job is a run that continues a stored fit."""
    changed = {key.partition(".")[0] for key, _, _ in _differences(stored, utf8(requested))}
    return stored.get("command") == "fit" and requested["command"] == "run" and changed <= EXTENDED


def is_update(stored: dict[str, Any], requested: dict[str, Any]) -> bool:
    """Return whether the requested job differs from the stored one in the list of images, and as an extension may."""
    changed = {key.partition(".")[0] for key, _, _ in _differences(stored, utf8(requested))} - {"list", "model"}
    if stored.get("command") == "fit" and requested["command"] == "run":
        changed -= EXTENDED
    return not changed


def check_same(out: Folder, current: Commit, requested: dict[str, object], images: Iterable[ImageEntry]) -> None:
    """Raise an ``OutputError`` with all differences if a folder contains another job than the requested one.

    Parameters
    ----------
    out : Folder
    current : Commit
        The last commit of the folder.
    requested : dict
        The identity of the requested job.
    images : iterable of ImageEntry
        The current list, to name changed images.
    """
    if differences := list(_differences(current.job, utf8(requested))):
        keys = {key for key, _, _ in differences}
        changed = ""
        if keys & {"images", "limit", "sample", "seed", *SOURCE_OPTIONS}:  # these imply another plan
            differences = [each for each in differences if each[0] not in ("list.images", "list.digest")]
        elif "list.digest" in keys:
            changed = _changes(out, current, images)
        lines = "".join(
            f"\n  {brief(key)}: {_value(old)} stored, {_value(new)} requested" for key, old, new in differences[:SHOWN]
        )
        if len(differences) > SHOWN:
            lines += f"\n  and {len(differences) - SHOWN} more"
        has_features = requested["command"] in FITTING and "source" not in requested
        update = ", or `update` to bring it to the current images" if keys <= UPDATED and has_features else ""
        raise OutputError(
            f"{out.address} contains another job:{lines}{changed}\n"
            f"Give another `out`, or `overwrite` to replace that job{update}."
        )


def _value(value: object) -> str:
    """Return a value of an identity as text."""
    if value is None:
        return "nothing"
    return ", ".join(map(brief, value)) if isinstance(value, list) else brief(value)


def _changes(out: Folder, current: Commit, images: Iterable[ImageEntry]) -> str:
    try:
        return f"\n  changed images: {describe_changes(StoredJob.load(out, current).images(), images)}"
    except (OSError, FruitsError):  # the stored plan is corrupt; the other differences suffice
        return ""


def _differences(
    stored: dict[str, Any], requested: dict[str, Any], prefix: str = ""
) -> Iterator[tuple[str, object, object]]:
    """Yield the dotted key and both values of each difference, no deeper than `requested`."""
    for key in sorted(stored.keys() | requested.keys()):
        old, new = stored.get(key), requested.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _differences(old, new, f"{prefix}{key}.")
        elif old != new:
            yield prefix + key, old, new
