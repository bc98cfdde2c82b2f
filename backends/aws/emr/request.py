"""The request for a cluster on EMR, as a pure function of the settings: what ``run_job_flow`` is called with.

A node of type ``c7i.4xlarge`` has 16 vCPUs and 32 GiB, of which YARN gives away 24: four executors of four cores and
5 GiB each, and on one core node the driver's 4 GiB instead of what is left. Most of an executor's memory is outside of
Java, for its four Python workers.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from backends.aws.account.clients import tags_of
from backends.aws.account.roles import INSTANCE_PROFILE, SERVICE_ROLE
from backends.aws.account.vpc import Vpc
from backends.aws.emr.releases import release
from backends.aws.staging.staged import StagedFiles
from fruits.clusters.clouds import EmrCluster
from fruits.storage.s3.settings import S3Settings

__all__ = ["PREFIX", "PYTHON", "job_flow", "software", "step"]

PREFIX = "/opt/fruits"  # of the virtual environment, on every node
PYTHON = f"{PREFIX}/bin/python"
SPOT_MINUTES = 10
BOOTSTRAP_NAME = "fruits environment"

SPARK = {
    "spark.executor.cores": "4",
    "spark.executor.memory": "2g",
    "spark.executor.memoryOverhead": "3g",
    "spark.driver.memory": "2g",
    "spark.driver.memoryOverhead": "2g",  # the network is compiled in the driver's Python
    "spark.dynamicAllocation.enabled": "true",
    "spark.yarn.maxAppAttempts": "1",  # a job that failed goes on when it is asked for again, not by itself
    "spark.yarn.appMasterEnv.PYSPARK_PYTHON": PYTHON,
    "spark.executorEnv.PYSPARK_PYTHON": PYTHON,
    "spark.yarn.appMasterEnv.FRUITS_CACHE": "fruits-cache",  # in the container's folder, which YARN removes
}

# The driver must not be on a node that Spot takes away. From release 6 on this is not the default:
# https://repost.aws/knowledge-center/emr-configure-node-labeling-yarn
YARN = {"yarn.node-labels.enabled": "true", "yarn.node-labels.am.default-node-label-expression": "CORE"}


def job_flow(
    settings: EmrCluster,
    *,
    name: str,
    bucket: str,
    staged: StagedFiles,
    network: Vpc | None = None,
    steps: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Return the keyword arguments of ``run_job_flow``.

    With steps, the cluster ends after the last of them; without, when it was idle for ``idle_minutes``.

    Parameters
    ----------
    settings : EmrCluster
    name : str
        The name of the job, or of the long-lived cluster; what is made is tagged with it.
    bucket : str
        Where the logs and the notebooks go, without ``s3://``.
    staged : StagedFiles
        What ``fruits cluster stage`` has put into the bucket.
    network : Vpc, optional
        Left out where the request is only to be read.
    steps : sequence of step
        As :func:`step` makes them.

    Raises
    ------
    SettingsError
        The release is not known.
    """
    release(settings.release)
    instances: dict[str, Any] = {
        "InstanceFleets": _fleets(settings),
        "KeepJobFlowAliveWhenNoSteps": not steps,
        "TerminationProtected": False,
    }
    if network is not None:
        instances |= {
            "Ec2SubnetIds": list(network.subnets),
            "EmrManagedMasterSecurityGroup": network.master_group,
            "EmrManagedSlaveSecurityGroup": network.worker_group,
        }
        if network.service_group is not None:
            instances["ServiceAccessSecurityGroup"] = network.service_group
    if settings.key_pair is not None:
        instances["Ec2KeyName"] = settings.key_pair
    request: dict[str, Any] = {
        "Name": name,
        "ReleaseLabel": settings.release,
        "Applications": [{"Name": name} for name in ("Spark", *(("Livy", "JupyterHub") if settings.notebook else ()))],
        "LogUri": f"s3://{bucket}/fruits/logs/",
        "ServiceRole": SERVICE_ROLE,
        "JobFlowRole": INSTANCE_PROFILE,
        "Instances": instances,
        "Configurations": software(settings, bucket),
        "BootstrapActions": [
            {
                "Name": BOOTSTRAP_NAME,
                "ScriptBootstrapAction": {
                    "Path": staged.bootstrap,
                    "Args": [staged.wheelhouse, PREFIX, f"python{release(settings.release).python or '3'}"],
                },
            }
        ],
        "Tags": [{"Key": key, "Value": value} for key, value in tags_of(name, settings.tags).items()],
        "VisibleToAllUsers": True,
        "EbsRootVolumeSize": 30,
        "ScaleDownBehavior": "TERMINATE_AT_TASK_COMPLETION",
    }
    if steps:
        request["Steps"] = list(steps)
    else:
        request["AutoTerminationPolicy"] = {"IdleTimeout": settings.idle_minutes * 60}
    if settings.task_nodes:
        request["ManagedScalingPolicy"] = {"ComputeLimits": _limits(settings)}
    if settings.security_configuration is not None:
        request["SecurityConfiguration"] = settings.security_configuration
    return request


def step(name: str, *, staged: StagedFiles, folder: str, s3: S3Settings, words: Sequence[str]) -> dict[str, Any]:
    """Return the step that runs ``fruits WORDS`` under spark-submit.

    Parameters
    ----------
    name : str
    staged : StagedFiles
    folder : str
        The address where the step leaves its log and its result.
    s3 : S3Settings
        How the client reaches S3, and so the nodes: encryption and who pays among it.
    words : sequence of str
        The command line, such as ``["transform", "s3://…", "--cluster", "spark-yarn"]``.
    """
    # Flat, for YARN takes "}}" out of what it is told to run.
    settings = json.dumps({key: value for key, value in dataclasses.asdict(s3).items() if value})
    return {
        "Name": name,
        "ActionOnFailure": "TERMINATE_CLUSTER",
        "HadoopJarStep": {
            "Jar": "command-runner.jar",
            "Args": ["spark-submit", "--deploy-mode", "cluster", staged.step, folder, settings, *words],
        },
    }


def software(settings: EmrCluster, bucket: str) -> list[dict[str, Any]]:
    """Return the configurations of the applications, as in ``config_jup_emr.json``."""
    found: list[dict[str, Any]] = [
        {"Classification": "spark-defaults", "Properties": SPARK | settings.conf},
        {"Classification": "yarn-site", "Properties": dict(YARN)},
        {
            "Classification": "spark-env",  # what Livy, and with it the PySpark kernel of JupyterHub, runs Python with
            "Properties": {},
            "Configurations": [{"Classification": "export", "Properties": {"PYSPARK_PYTHON": PYTHON}}],
        },
    ]
    if settings.notebook:
        persistence = {"s3.persistence.enabled": "true", "s3.persistence.bucket": bucket}
        found.append({"Classification": "jupyter-s3-conf", "Properties": persistence})
    return found


def _fleets(settings: EmrCluster) -> list[dict[str, Any]]:
    """Return the fleets: one unit of capacity is a node."""

    def fleet(kind: str, types: Sequence[str], capacity: int, *, spot: bool = False) -> dict[str, Any]:
        volume = {"VolumeType": "gp3", "SizeInGB": settings.disk_gb}
        made: dict[str, Any] = {
            "Name": kind.lower(),
            "InstanceFleetType": kind,
            "TargetSpotCapacity" if spot else "TargetOnDemandCapacity": capacity,
            "InstanceTypeConfigs": [
                {
                    "InstanceType": type_,
                    "WeightedCapacity": 1,
                    "EbsConfiguration": {
                        "EbsBlockDeviceConfigs": [{"VolumeSpecification": volume, "VolumesPerInstance": 1}]
                    },
                }
                for type_ in types
            ],
        }
        if spot:
            made["LaunchSpecifications"] = {
                "SpotSpecification": {
                    "TimeoutDurationMinutes": SPOT_MINUTES,
                    "TimeoutAction": "SWITCH_TO_ON_DEMAND",
                    "AllocationStrategy": "price-capacity-optimized",
                }
            }
        return made

    fleets = [
        fleet("MASTER", [settings.master_type], 1),
        fleet("CORE", settings.worker_types, settings.core_nodes),
    ]
    if settings.task_nodes:
        fleets.append(fleet("TASK", settings.worker_types, settings.task_nodes, spot=settings.spot))
    return fleets


def _limits(settings: EmrCluster) -> dict[str, Any]:
    nodes = settings.core_nodes + settings.task_nodes
    return {
        "UnitType": "InstanceFleetUnits",
        "MinimumCapacityUnits": settings.core_nodes,
        "MaximumCapacityUnits": nodes,
        "MaximumCoreCapacityUnits": settings.core_nodes,
        "MaximumOnDemandCapacityUnits": settings.core_nodes if settings.spot else nodes,
    }
