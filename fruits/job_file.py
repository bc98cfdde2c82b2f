"""What ``job.json`` says, by which a folder is known to hold this job or another."""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Iterable

from fruits.changes import changes
from fruits.dataset import Entry, Plan
from fruits.errors import FruitsError, OutputError
from fruits.featurizer import Network
from fruits.job import Job
from fruits.scaled_pca import ScaledPCA
from fruits.storage import Folder

__all__ = ["JOB", "check_same", "describe", "versions"]

SCHEMA = "fruits.job/1"
JOB = "job.json"


def describe(command: str, job: Job, plan: Plan, network: Network, model: ScaledPCA | None) -> dict[str, object]:
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


def check_same(out: Folder, there: dict[str, object], asked: dict[str, object], images: Iterable[Entry]) -> None:
    """Raise where the job that a folder holds is not the one that is asked; `images` is listed again to say more."""
    old, new = _flat(there), _flat(asked)
    if differences := [key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]:
        lines = "".join(f"\n  {key}: {old.get(key)} there, {new.get(key)} asked" for key in differences)
        if "plan.digest" in differences and not {"images", "limit"} & set(differences):
            lines += _changes(out, there["plan"], images)
        raise OutputError(
            f"{out.address} holds another job:{lines}\nGive another --out, or --overwrite to throw that job away."
        )


def _changes(out: Folder, plan: object, images: Iterable[Entry]) -> str:
    try:
        return f"\n  images since then: {changes(out / 'plan', Plan(**plan), images)}"  # type: ignore[arg-type]
    except (OSError, TypeError, FruitsError):  # what is stored there is damaged, and another job all the same
        return ""


def _flat(about: dict[str, object], prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in about.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat
