"""How a session on a cluster is opened: by the key pair it has, or by AWS' Session Manager, which opens no port."""

from __future__ import annotations

import json

from backends.aws.account.clients import Account, explained
from backends.aws.emr.steps import ACTIVE, clusters
from fruits.errors import SettingsError

__all__ = ["session_command"]


def session_command(account: Account, name: str, tunnel: int | None = None) -> list[str]:
    """Return the command that opens a session on the leading node, or forwards one of its ports to this machine.

    Parameters
    ----------
    account : Account
    name : str
        The cluster, or the job that it was made for.
    tunnel : int, optional
        The port to forward.

    Raises
    ------
    SettingsError
        No such cluster is up.
    """
    cluster = next((found for found in clusters(account, name) if found["Status"]["State"] in ACTIVE), None)
    if cluster is None:
        raise SettingsError(f"{name}: no such cluster is up. `fruits cluster status` shows those that are.")
    with explained(f"look up the leading node of {name}"):
        answer = account.client("emr").list_instances(
            ClusterId=cluster["Id"], InstanceFleetType="MASTER", InstanceStates=["RUNNING", "BOOTSTRAPPING"]
        )
    if not answer["Instances"]:
        raise SettingsError(f"{name} has no leading node yet: it is {cluster['Status']['State'].lower()}. Try later.")
    command = ["aws", "ssm", "start-session", "--target", str(answer["Instances"][0]["Ec2InstanceId"])]
    if tunnel is not None:
        ports = {"portNumber": [str(tunnel)], "localPortNumber": [str(tunnel)]}
        command += ["--document-name", "AWS-StartPortForwardingSession", "--parameters", json.dumps(ports)]
    return [*command, "--region", str(account.client("emr").meta.region_name)]
