"""Sessions on the master node through the AWS Session Manager, which needs no open port."""

from __future__ import annotations

import json

from backends.aws.account.clients import Account, translated_errors
from backends.aws.emr.clusters import find_cluster
from fruits.errors import SettingsError


def session_command(account: Account, name: str, tunnel: int | None = None) -> list[str]:
    """Return the command that opens a session on the master node, or forwards one of its ports to this machine.

    Parameters
    ----------
    account : Account
    name : str
        The cluster, or the job that it was started for.
    tunnel : int, optional
        The port to forward.

    Raises
    ------
    SettingsError
        The cluster does not exist, or its master node has not started.
    """
    cluster = find_cluster(account, name)
    if cluster is None:
        raise SettingsError(f"{name}: no such cluster is running. List the running ones with: fruits cluster status.")
    with translated_errors(f"look up the master node of {name}"):
        response = account.client("emr").list_instances(
            ClusterId=cluster["Id"], InstanceFleetType="MASTER", InstanceStates=["RUNNING", "BOOTSTRAPPING"]
        )
    if not response["Instances"]:
        state = cluster["Status"]["State"].lower()
        raise SettingsError(f"The master node of {name} has not started (cluster state: {state}). Try again later.")
    command = ["aws", "ssm", "start-session", "--target", str(response["Instances"][0]["Ec2InstanceId"])]
    if tunnel is not None:
        ports = {"portNumber": [str(tunnel)], "localPortNumber": [str(tunnel)]}
        command += ["--document-name", "AWS-StartPortForwardingSession", "--parameters", json.dumps(ports)]
    return [*command, "--region", account.region_name]
