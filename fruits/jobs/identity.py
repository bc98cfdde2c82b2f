"""The identity of a job: the settings, stored in its commits, that determine every bit of its output."""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Iterable, Iterator
from typing import Any

from fruits.errors import FruitsError, OutputError
from fruits.images.listing import ImageEntry
from fruits.images.plan import Plan, changes, plan_files
from fruits.jobs.job import Job
from fruits.model.scaled_pca import ScaledPCA
from fruits.network.featurizer import NeuralNetwork
from fruits.storage.commits import Commit
from fruits.storage.folder import Folder
from fruits.text import brief, utf8, without_secrets

__all__ = ["check_same", "describe", "is_same", "stored_plan", "versions"]

SCHEMA = "fruits.job/1"
SHOWN = 20  # differences in a message; a job has fewer settings


def describe(command: str, job: Job, plan: Plan, network: NeuralNetwork, model: ScaledPCA | None) -> dict[str, object]:
    """Return the identity of a job: everything that determines its output, and thus not the backend."""
    identity: dict[str, object] = {
        "schema": SCHEMA,
        "command": command,
        "images": without_secrets(Folder.at(job.images).address),
        "limit": job.limit,
        "follow_links": job.follow_links,
        **({"sample": job.sample, "seed": job.seed} if job.sample is not None else {}),
        **({"include_hidden": True} if job.include_hidden else {}),
        "plan": dataclasses.asdict(plan),
        "network": {"backbone": network.backbone, "engine": network.engine, "weights": network.weights_digest},
    }
    if model is None:
        identity |= {"components": job.components, "solver": job.solver}
    else:
        identity |= {"model": model.digest()}
    if command != "fit":
        identity |= {"format": job.format, "columns": list(job.columns)}
    identity["versions"] = versions() | {"engine": network.package}
    return identity


def versions() -> dict[str, str]:
    """Return the versions of the packages that turn images into numbers, except the network's engine."""
    return {name: importlib.metadata.version(name) for name in ("fruits", "numpy", "pillow")}


def is_same(stored: dict[str, object], requested: dict[str, object]) -> bool:
    """Return whether a stored identity equals the requested one."""
    return not any(_differences(stored, utf8(requested)))


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
        The listing; iterated again to name changed images.
    """
    if differences := list(_differences(current.job, utf8(requested))):
        keys = {key for key, _, _ in differences}
        changed = ""
        if keys & {"images", "limit", "sample", "seed", "follow_links", "include_hidden"}:  # these imply another plan
            differences = [each for each in differences if each[0] not in ("plan.images", "plan.digest")]
        elif "plan.digest" in keys:
            changed = _changes(out, current, images)
        lines = "".join(
            f"\n  {brief(key)}: {_value(old)} stored, {_value(new)} requested" for key, old, new in differences[:SHOWN]
        )
        if len(differences) > SHOWN:
            lines += f"\n  and {len(differences) - SHOWN} more"
        raise OutputError(
            f"{out.address} contains another job:{lines}{changed}\n"
            "Give another `out`, or `overwrite` to replace that job."
        )


def stored_plan(out: Folder, commit: Commit) -> Plan:
    """Return the plan in a commit.

    Raises
    ------
    OutputError
        The commit contains no valid plan, or other plan files than this plan has: readers allocate memory for each
        partition.
    """
    plan = commit.job.get("plan")
    match plan:
        case {"images": int(images), "partition_size": int(size), "digest": str(digest), **others}:
            files = sum(name.startswith("plan/") for name in commit.files)
            if images >= 0 and size >= 1 and not others and plan_files(images, size) == files:
                return Plan(images, size, digest)
    raise OutputError(
        f"{out.address} is corrupt: the plan in its commit is {brief(plan)}. Use `overwrite` to start over."
    )


def _value(value: object) -> str:
    """Return a value of an identity as text."""
    if value is None:
        return "nothing"
    return ", ".join(map(brief, value)) if isinstance(value, list) else brief(value)


def _changes(out: Folder, current: Commit, images: Iterable[ImageEntry]) -> str:
    try:
        return f"\n  changed images: {changes(out / 'plan', current.owner, stored_plan(out, current), images)}"
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
