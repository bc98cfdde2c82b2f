"""Requests, policies and scripts as files, to read or to use by hand: ``fruits cluster render``."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

from backends.aws.account.policies import NODES, bucket_policy, key_arn, node_policy, service_policy, trust, user_policy
from backends.aws.emr.releases import release
from backends.aws.emr.request import configurations, job_flow, step_request
from backends.aws.staging.staged_files import StagedFiles
from fruits.clusters.clouds import EmrCluster
from fruits.storage.s3.settings import S3Settings

__all__ = ["rendered"]


def rendered(settings: EmrCluster, entry: str, *, bucket: str, account: str) -> dict[str, str]:
    """Return the content of each file by its name.

    Parameters
    ----------
    settings : EmrCluster
    entry : str
        The name of the cluster.
    bucket : str
        Without ``s3://``.
    account : str
        The account number.
    """
    staged = StagedFiles.for_python(bucket, release(settings.release).python or "none")
    arguments = ["run", f"s3://{bucket}/images", "--out", f"s3://{bucket}/out", "--cluster", "spark-yarn"]
    s3 = S3Settings.from_environment()
    folder = f"s3://{bucket}/fruits/jobs/example"
    documents: dict[str, Any] = {
        "run_job_flow.json": job_flow(settings, name=entry, bucket=bucket, staged=staged),
        "step.json": step_request("example", staged=staged, folder=folder, s3=s3, arguments=arguments),
        "config_jup_emr.json": configurations(settings, bucket),
        "policy_bucket.json": bucket_policy(bucket),
        "policy_node.json": node_policy(bucket, key=key_arn(s3)),
        "policy_service.json": service_policy(account),
        "policy_user.json": user_policy(bucket, account, settings.region or "*", key_arn(s3)),
        "trust_node.json": trust(NODES),
        "trust_service.json": trust("elasticmapreduce.amazonaws.com", account),
    }
    script = (files("backends.aws.emr") / "bootstrap_emr.sh").read_text(encoding="utf-8")
    contents = {name: json.dumps(document, indent=2) + "\n" for name, document in documents.items()}
    return contents | {"bootstrap_emr.sh": script}
