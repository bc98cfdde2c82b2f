"""Requests, the template of the account and scripts as files, to read or to use by hand: ``fruits cluster render``."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

from backends.aws.account.stack import Installed, template
from backends.aws.emr.releases import release
from backends.aws.emr.request import configurations, job_flow, step_request
from backends.aws.staging.staged_files import StagedFiles
from fruits.clusters.clouds import EmrCluster


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
    staged = StagedFiles.for_release(bucket, release(settings.release))
    installed = Installed(settings.region or "us-east-1", account)
    arguments = ["run", f"s3://{bucket}/images", "--out", f"s3://{bucket}/out", "--cluster", "spark-yarn"]
    documents: dict[str, Any] = {
        "run_job_flow.json": job_flow(settings, name=entry, staged=staged, installed=installed),
        "step.json": step_request("example", staged, arguments),
        "config_jup_emr.json": configurations(settings, bucket),
    }
    script = (files("backends.aws.emr") / "bootstrap_emr.sh").read_text(encoding="utf-8")
    contents = {name: json.dumps(document, indent=2) + "\n" for name, document in documents.items()}
    return contents | {"bootstrap_emr.sh": script, "stack.yaml": template()}
