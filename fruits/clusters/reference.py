"""Print the key reference of ``cluster.yaml``, generated from its models: ``python -m fruits.clusters.reference``.

A test compares the output with the comment block in ``cluster.yaml``.
"""

from __future__ import annotations

import textwrap
from typing import Any

from fruits.clusters.clouds import AwsCluster, DaskEc2Cluster, EmrCluster, EmrServerlessCluster, NodesCluster
from fruits.clusters.models import AddressableCluster, ClusterSettings, LocalCluster, SparkCluster, StrictModel

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
        schema = model.model_json_schema()
        for name, key in schema["properties"].items():
            if name not in known:
                lines += _key_lines(name, key, required=name in schema.get("required", ()))
    return "\n".join(lines)


def _key_lines(name: str, key: dict[str, Any], *, required: bool) -> list[str]:
    default = "Required." if required else _default(key.get("default"))
    text = " ".join(part for part in (key["description"], _range(key), _example(key), default) if part)
    lead = f"#   {name}"
    first = lead.ljust(INDENT) if len(lead) < INDENT - 1 else f"{lead}  "
    return textwrap.wrap(text, WIDTH, initial_indent=first, subsequent_indent="#".ljust(INDENT), break_on_hyphens=False)


def _range(key: dict[str, Any]) -> str:
    limits = {name: limit for schema in (key, *key.get("anyOf", ())) for name, limit in schema.items()}
    low = limits["exclusiveMinimum"] + 1 if "exclusiveMinimum" in limits else limits.get("minimum")
    if low is None:
        return ""
    return f"Allowed: {low} to {limits['maximum']}." if "maximum" in limits else f"Allowed: {low} or more."


def _example(key: dict[str, Any]) -> str:
    return f"Example: {key['examples'][0]}." if "examples" in key and key.get("default") is None else ""


def _default(default: Any) -> str:
    if default is None or default == {}:
        return ""
    if isinstance(default, list):
        return f"Default: [{', '.join(default)}]."
    return f"Default: {str(default).lower() if isinstance(default, bool) else default}."


if __name__ == "__main__":
    print(key_reference())
