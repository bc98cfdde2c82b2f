"""Print the key reference of ``cluster.yaml``, generated from its models: ``python -m fruits.clusters.reference``.

A test compares the output with the comment block in ``cluster.yaml``.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any, cast, get_args

from annotated_types import Ge, Gt, Le
from pydantic.fields import FieldInfo

from fruits.clusters.clouds import AwsCluster, DaskEc2Cluster, EmrCluster, EmrServerlessCluster, NodesCluster
from fruits.clusters.models import AddressableCluster, ClusterSettings, LocalCluster, SparkCluster, StrictModel

__all__ = ["key_reference"]

WIDTH, INDENT = 120, 26
# The heading, the model, and the model whose keys are documented already.
SECTIONS: tuple[tuple[str, type[StrictModel], type[StrictModel] | None], ...] = (
    ("Keys of every cluster", ClusterSettings, None),
    ("Keys with backend: local", LocalCluster, ClusterSettings),
    ("Keys with backend: dask or spark, and no cloud", AddressableCluster, ClusterSettings),
    ("More keys with backend: spark, and no cloud", SparkCluster, AddressableCluster),
    ("Keys of a cluster that is created in a cloud for a job (docs/aws.md)", AwsCluster, ClusterSettings),
    ("More keys with cloud: emr or dask-ec2", NodesCluster, AwsCluster),
    ("More keys with cloud: emr", EmrCluster, NodesCluster),
    ("More keys with cloud: emr-serverless", EmrServerlessCluster, AwsCluster),
    ("More keys with cloud: dask-ec2", DaskEc2Cluster, NodesCluster),
)


def key_reference() -> str:
    """Return the reference as YAML comments, without a final newline."""
    lines = []
    for heading, model, documented in SECTIONS:
        lines += ["#", f"# {heading}:"]
        known = documented.model_fields if documented else {}
        for name, field in model.model_fields.items():
            if name not in known:
                lines += _key_lines(name, field)
    return "\n".join(lines)


def _key_lines(name: str, field: FieldInfo) -> list[str]:
    text = " ".join(part for part in (field.description, _range(field), _example(field), _default(field)) if part)
    lead = f"#   {name}"
    first = lead.ljust(INDENT) if len(lead) < INDENT - 1 else f"{lead}  "
    return textwrap.wrap(text, WIDTH, initial_indent=first, subsequent_indent="#".ljust(INDENT), break_on_hyphens=False)


def _range(field: FieldInfo) -> str:
    low: object = None
    high: object = None
    for limit in _limits(field):
        if isinstance(limit, Gt):
            low = cast("int", limit.gt) + 1
        elif isinstance(limit, Ge):
            low = limit.ge
        elif isinstance(limit, Le):
            high = limit.le
    if low is None:
        return ""
    return f"Allowed: {low} or more." if high is None else f"Allowed: {low} to {high}."


def _limits(field: FieldInfo) -> Iterator[Any]:
    """Yield the constraints of a field, and of the alternatives of its annotation."""
    yield from field.metadata
    for alternative in get_args(field.annotation):
        for constraint in getattr(alternative, "__metadata__", ()):
            yield from constraint.metadata if isinstance(constraint, FieldInfo) else (constraint,)


def _example(field: FieldInfo) -> str:
    return f"Example: {field.examples[0]}." if field.examples and field.default is None else ""


def _default(field: FieldInfo) -> str:
    default = field.get_default(call_default_factory=True)
    if field.is_required():
        return "Required."
    if default is None or default == {}:
        return ""
    if isinstance(default, list):
        return f"Default: [{', '.join(default)}]."
    return f"Default: {str(default).lower() if isinstance(default, bool) else default}."


if __name__ == "__main__":
    print(key_reference())
