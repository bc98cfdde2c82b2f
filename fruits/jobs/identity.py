"""What ``job.json`` says, by which a folder is known to hold this job or another."""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Iterable, Iterator
from typing import Any

from fruits.errors import FruitsError, OutputError
from fruits.images.listing import ImageEntry
from fruits.images.plan import Plan
from fruits.images.plan_changes import changes
from fruits.jobs.job import Job
from fruits.model.scaled_pca import ScaledPCA
from fruits.network.featurizer import NeuralNetwork
from fruits.storage.folder import Folder
from fruits.text import brief, utf8

__all__ = ["JOB", "check_same", "describe", "is_same", "stored_plan", "versions"]

SCHEMA = "fruits.job/1"
JOB = "job.json"
SHOWN = 20  # differences; a job has fewer settings


def describe(command: str, job: Job, plan: Plan, network: NeuralNetwork, model: ScaledPCA | None) -> dict[str, object]:
    """Return what determines the bits of the output, for ``job.json``; the backend is not among it."""
    about: dict[str, object] = {
        "schema": SCHEMA,
        "command": command,
        "images": Folder.at(job.images).address,
        "limit": job.limit,
        "follow_links": job.follow_links,
        "plan": dataclasses.asdict(plan),
        "network": {"backbone": network.backbone, "engine": network.engine, "weights": network.weights_digest},
    }
    if model is None:
        about |= {"components": job.components, "solver": job.solver}
    else:
        about |= {"model": model.digest()}
    if command != "fit":
        about |= {"format": job.format, "columns": list(job.columns)}
    about["versions"] = versions() | {"engine": network.package}
    return about


def versions() -> dict[str, str]:
    """Return the versions of what turns images into numbers, but for the network's engine."""
    return {name: importlib.metadata.version(name) for name in ("fruits", "numpy", "pillow")}


def is_same(there: dict[str, object], asked: dict[str, object]) -> bool:
    """Tell whether the job that a folder holds is the one that is asked."""
    return not any(_differences(there, utf8(asked)))


def check_same(out: Folder, there: dict[str, object], asked: dict[str, object], images: Iterable[ImageEntry]) -> None:
    """Raise where the job that a folder holds is not the one that is asked; `images` is listed again to say more."""
    if differences := list(_differences(there, utf8(asked))):
        keys = {key for key, _, _ in differences}
        changed = ""
        if keys & {"images", "limit", "follow_links"}:  # what is listed is other images then, of course
            differences = [each for each in differences if each[0] not in ("plan.images", "plan.digest")]
        elif "plan.digest" in keys:
            changed = _changes(out, there, images)
        lines = "".join(
            f"\n  {brief(key)}: {_value(old)} there, {_value(new)} asked" for key, old, new in differences[:SHOWN]
        )
        if len(differences) > SHOWN:
            lines += f"\n  and {len(differences) - SHOWN} more"
        raise OutputError(
            f"{out.address} holds another job:{lines}{changed}\n"
            "Give another --out, or --overwrite to throw that job away."
        )


def _value(value: object) -> str:
    """Return a value of ``job.json`` in words."""
    if value is None:
        return "nothing"
    return ", ".join(map(brief, value)) if isinstance(value, list) else brief(value)


def stored_plan(out: Folder, about: dict[str, Any]) -> Plan:
    """Return the plan that the ``job.json`` of a folder, `about`, tells of.

    Raises
    ------
    OutputError
        It tells of none, or of one that no job has.
    """
    plan = about.get("plan")
    match plan:
        case {"images": int(images), "partition_size": int(size), "digest": str(digest), **others}:
            if images >= 0 and size >= 1 and not others:
                return Plan(images, size, digest)
    raise OutputError(f"{out.address}/{JOB} is damaged: its plan is {brief(plan)}. Use --overwrite to begin anew.")


def _changes(out: Folder, there: dict[str, Any], images: Iterable[ImageEntry]) -> str:
    try:
        return f"\n  images since then: {changes(out / 'plan', stored_plan(out, there), images)}"
    except (OSError, FruitsError):  # what is stored there is damaged, and another job all the same
        return ""


def _differences(
    there: dict[str, Any], asked: dict[str, Any], prefix: str = ""
) -> Iterator[tuple[str, object, object]]:
    """Yield what differs, by its keys; no deeper than what is asked goes."""
    for key in sorted(there.keys() | asked.keys()):
        old, new = there.get(key), asked.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _differences(old, new, f"{prefix}{key}.")
        elif old != new:
            yield prefix + key, old, new
