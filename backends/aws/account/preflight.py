"""Checks before anything costs money: the instance types of the region, and the quotas of the account.

A new account may run 5 vCPUs on demand and 5 as Spot: https://docs.aws.amazon.com/ec2/latest/instancetypes/ec2-instance-quotas.html
"""

from __future__ import annotations

from backends.aws.account.clients import Account, Notify, translated_errors
from backends.aws.instance_types import nodes_of, vcpus
from fruits.clusters.clouds import DaskEc2Cluster, EmrCluster
from fruits.errors import SettingsError
from fruits.storage.s3.errors import FORBIDDEN

STANDARD = "acdhimrtz"  # the instance families of the two quotas, by their first letter
QUOTAS = {"on-demand": "L-1216C47A", "Spot": "L-34B43A08"}
SMALLEST = 4  # vCPUs of the smallest node of EMR, an xlarge


def request_of(settings: EmrCluster | DaskEc2Cluster) -> dict[str, int]:
    """Return the vCPUs that a cluster needs of each quota; families outside of both quotas are not counted."""

    def count(kind: str, number: int) -> int:
        return number * vcpus(kind) if kind[0] in STANDARD else 0

    leader, (worker, *_), core, task = nodes_of(settings)
    steady, others = count(leader, 1) + count(worker, core), count(worker, task)
    return {"on-demand": steady, "Spot": others} if settings.spot else {"on-demand": steady + others, "Spot": 0}


def check_quotas(account: Account, settings: EmrCluster | DaskEc2Cluster, notify: Notify) -> None:
    """Compare a cluster with the instance types of the region and the quotas of the account, without what runs already.

    Raises
    ------
    SettingsError
        The region does not have an instance type, or a quota is too small; names both, and a shape that fits.
    """
    nodes = nodes_of(settings)
    types = sorted({nodes.leader, *nodes.workers})
    with translated_errors(f"use the instance types {', '.join(types)} of cluster.yaml in {account.region_name}"):
        account.client("ec2").describe_instance_types(InstanceTypes=types)
    needed = request_of(settings)
    allowed: dict[str, float] = {}
    client = account.client("service-quotas")
    for name, code in QUOTAS.items():
        with translated_errors("look up the quotas"):
            try:
                quota = client.get_service_quota(ServiceCode="ec2", QuotaCode=code)["Quota"]
            except client.exceptions.ClientError as error:
                if error.response["Error"]["Code"] not in FORBIDDEN | {"NoSuchResourceException"}:
                    raise
                notify(f"the quota of {name} vCPUs ({code}) could not be read; it is not checked")
                continue
        allowed[name] = float(quota["Value"])
    short = [name for name, most in allowed.items() if needed[name] > most]
    if short:
        lines = [f"{needed[name]} {name} vCPUs, but the quota {QUOTAS[name]} is {allowed[name]:g}" for name in short]
        requests = [
            f"\n  aws service-quotas request-service-quota-increase --region {account.region_name} --service-code ec2 "
            f"--quota-code {QUOTAS[name]} --desired-value {needed[name]}"
            for name in short
        ]
        raise SettingsError(
            f"The cluster needs {', and '.join(lines)}. {_fitting_shape(settings, allowed)} "
            f"An administrator requests more with:{''.join(requests)}"
        )


def _fitting_shape(settings: EmrCluster | DaskEc2Cluster, allowed: dict[str, float]) -> str:
    steady, spot = (int(allowed.get(name, 0)) for name in QUOTAS)
    if isinstance(settings, DaskEc2Cluster):
        count = (spot if settings.spot else steady - vcpus(settings.scheduler_type)) // SMALLEST
        fits = "scheduler_type: m7i.large, worker_type: c7i.xlarge" if count > 0 and steady >= 2 else ""
        return f"Fitting in cluster.yaml: {fits}, worker_nodes: {count}." if fits else "No shape fits; request more."
    if steady >= 2 * SMALLEST:
        core, task = steady // SMALLEST - 1, spot // SMALLEST if settings.spot else 0
        nodes = f"core_nodes: {core}, task_nodes: {task}"
        return f"Fitting in cluster.yaml: master_type: m7i.xlarge, worker_types: [m7i.xlarge], {nodes}."
    if steady >= SMALLEST:
        return "Fitting in cluster.yaml: master_type: m7i.xlarge, core_nodes: 0, task_nodes: 0 (one node of 4 vCPUs)."
    return "No shape of EMR fits; request more, or use a cluster with cloud: emr-serverless, which has its own quota."
