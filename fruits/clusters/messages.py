"""Messages about an invalid ``cluster.yaml``: the key, the problem, and the allowed values."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from fruits.clusters.cluster_file import BACKENDS, CLOUDS, ClusterFile
from fruits.text import brief, quoted


def describe(problem: ErrorDetails) -> str:
    """Return the message of one pydantic error."""
    location = problem["loc"]
    model: type[BaseModel] = ClusterFile
    if len(location) > 2 and location[2] != "[key]":
        # clusters, the name, then the model, which pydantic inserts for a union
        model = {**BACKENDS, **CLOUDS}[str(location[2])]
        location = (*location[:2], *location[3:])
    if location and location[-1] == "[key]":
        return f"{brief('.'.join(map(str, location[:-1])))}: a name must be text. Put it in quotation marks."
    name = brief(".".join(map(str, location))) or "the file"
    if problem["type"] == "extra_forbidden":
        return f"{name}: unknown key. Allowed: {', '.join(model.model_fields)}."
    if problem["type"] in ("union_tag_invalid", "union_tag_not_found"):
        return f"{name}: {_unknown_model(problem['input'])}"
    # A property of Spark may be a secret, and a whole entry may contain one.
    secret = "conf" in location or isinstance(problem["input"], Mapping)
    given = "" if secret else f" Given: {quoted(problem['input'])}."
    if problem["type"] == "string_pattern_mismatch":
        field = model.model_fields.get(str(location[2])) if len(location) > 2 else None
        if field is not None and field.examples:
            return f"{name}: wrong format. Example: {field.examples[0]}.{given}"
    return f"{name}: {problem['msg'][0].lower()}{problem['msg'][1:]}.{given}"


def _unknown_model(entry: object) -> str:
    """Return the message about an entry whose ``backend`` and ``cloud`` select no model."""
    allowed = [f"backend: {backend}" for backend in BACKENDS] + [f"cloud: {cloud}" for cloud in CLOUDS]
    keys = entry if isinstance(entry, Mapping) else {}
    given = ", ".join(f"{key}: {brief(keys[key])}" for key in ("backend", "cloud") if key in keys)
    return f"{f'{given}: not known' if given else 'needs a backend'}. Allowed: {', '.join(allowed)}."
