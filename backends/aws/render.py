"""What would be sent to AWS, as files to read or to use by hand: ``fruits cluster render``."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

from backends.aws.account.roles import NODES, bucket_policy, key_arn, node_policy, service_policy, trust, user_policy
from backends.aws.emr.releases import release
from backends.aws.emr.request import job_flow, software, step
from backends.aws.staging.staged import StagedFiles
from fruits.clusters.clouds import EmrCluster
from fruits.storage.s3.settings import S3Settings

__all__ = ["rendered"]


def rendered(settings: EmrCluster, entry: str, *, bucket: str, account: str) -> dict[str, str]:
    """Return the content of each file, by its name.

    Parameters
    ----------
    settings : EmrCluster
    entry : str
        The name of the cluster.
    bucket : str
        Without ``s3://``.
    account : str
        The number of the account.
    """
    staged = StagedFiles.of(bucket, release(settings.release).python or "none")
    words = ["run", f"s3://{bucket}/images", "--out", f"s3://{bucket}/out", "--cluster", "spark-yarn"]
    s3 = S3Settings.from_environment()
    example = step("example", staged=staged, folder=f"s3://{bucket}/fruits/jobs/example", s3=s3, words=words)
    documents: dict[str, Any] = {
        "run_job_flow.json": job_flow(settings, name=entry, bucket=bucket, staged=staged),
        "step.json": example,
        "config_jup_emr.json": software(settings, bucket),
        "policy_bucket.json": bucket_policy(bucket),
        "policy_node.json": node_policy(bucket, key=key_arn(s3)),
        "policy_service.json": service_policy(account),
        "policy_user.json": user_policy(bucket, account, settings.region or "*", key_arn(s3)),
        "trust_node.json": trust(NODES),
        "trust_service.json": trust("elasticmapreduce.amazonaws.com", account),
    }
    found = {name: json.dumps(document, indent=2) + "\n" for name, document in documents.items()}
    return found | {"bootstrap_emr.sh": (files("backends.aws.emr") / "bootstrap_emr.sh").read_text(encoding="utf-8")}
