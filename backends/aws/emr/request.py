"""Requests to EMR as pure functions of the settings: the cluster (``run_job_flow``) and its steps.

Of the 32 GiB of a ``c7i.4xlarge`` (16 vCPUs), YARN allocates 24: four executors of four cores and 5 GiB each; on one
core node, the rest holds the driver's 4 GiB. Most of an executor's memory is outside of Java, for its four Python
workers.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from backends.aws.account.policies import INSTANCE_PROFILE, SERVICE_ROLE
from backends.aws.account.tags import aws_tags, tags_of
from backends.aws.account.vpc import Vpc
from backends.aws.emr.releases import release
from backends.aws.staging.staged_files import StagedFiles
from fruits.clusters.clouds import EmrCluster
from fruits.storage.s3.settings import S3Settings

__all__ = ["PREFIX", "PYTHON", "configurations", "job_flow", "step_request"]

PREFIX = "/opt/fruits"  # of the virtual environment on every node
PYTHON = f"{PREFIX}/bin/python"
SPOT_MINUTES = 10
BOOTSTRAP_NAME = "fruits environment"

SPARK = {
    "spark.executor.cores": "4",
    "spark.executor.memory": "2g",
    "spark.executor.memoryOverhead": "3g",
    "spark.driver.memory": "2g",
    "spark.driver.memoryOverhead": "2g",  # the driver compiles the network in Python
    "spark.dynamicAllocation.enabled": "true",
    "spark.yarn.maxAppAttempts": "1",  # a failed job is resumed by the user, not by YARN
    "spark.yarn.appMasterEnv.PYSPARK_PYTHON": PYTHON,
    "spark.executorEnv.PYSPARK_PYTHON": PYTHON,
    "spark.yarn.appMasterEnv.FRUITS_CACHE": "fruits-cache",  # in the folder of the container, which YARN deletes
}

# Keep the driver off Spot nodes, which can be reclaimed. Since EMR 6 this is not the default:
# https://repost.aws/knowledge-center/emr-configure-node-labeling-yarn
YARN = {"yarn.node-labels.enabled": "true", "yarn.node-labels.am.default-node-label-expression": "CORE"}


def job_flow(
    settings: EmrCluster,
    *,
    name: str,
    bucket: str,
    staged: StagedFiles,
    vpc: Vpc | None = None,
    steps: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Return the keyword arguments of ``run_job_flow``.

    With steps, the cluster ends after the last one; without, it shuts down after ``idle_minutes``.

    Parameters
    ----------
    settings : EmrCluster
    name : str
        The name of the job or of the long-lived cluster; the tag of every resource.
    bucket : str
        The bucket of the logs and the notebooks, without ``s3://``.
    staged : StagedFiles
    vpc : Vpc, optional
        Omitted by ``render``, whose request is for reading.
    steps : sequence of mapping
        Requests from :func:`step_request`.

    Raises
    ------
    SettingsError
        The release is unknown.
    """
    release(settings.release)
    request: dict[str, Any] = {
        "Name": name,
        "ReleaseLabel": settings.release,
        "Applications": [{"Name": name} for name in ("Spark", *(("Livy", "JupyterHub") if settings.notebook else ()))],
        "LogUri": f"s3://{bucket}/fruits/logs/",
        "ServiceRole": SERVICE_ROLE,
        "JobFlowRole": INSTANCE_PROFILE,
        "Instances": _instances(settings, vpc, keep_alive=not steps),
        "Configurations": configurations(settings, bucket),
        "BootstrapActions": [
            {
                "Name": BOOTSTRAP_NAME,
                "ScriptBootstrapAction": {
                    "Path": staged.bootstrap,
                    "Args": [staged.wheelhouse, PREFIX, f"python{release(settings.release).python or '3'}"],
                },
            }
        ],
        "Tags": aws_tags(tags_of(name, settings.tags)),
        "VisibleToAllUsers": True,
        "EbsRootVolumeSize": 30,
        "ScaleDownBehavior": "TERMINATE_AT_TASK_COMPLETION",
    }
    if steps:
        request["Steps"] = list(steps)
    else:
        request["AutoTerminationPolicy"] = {"IdleTimeout": settings.idle_minutes * 60}
    if settings.task_nodes:
        request["ManagedScalingPolicy"] = {"ComputeLimits": _scaling_limits(settings)}
    if settings.security_configuration is not None:
        request["SecurityConfiguration"] = settings.security_configuration
    return request


def step_request(
    name: str, *, staged: StagedFiles, folder: str, s3: S3Settings, arguments: Sequence[str]
) -> dict[str, Any]:
    """Return the step that runs ``fruits ARGUMENTS`` under spark-submit.

    Parameters
    ----------
    name : str
    staged : StagedFiles
    folder : str
        The address of the folder for the log and the result.
    s3 : S3Settings
        The S3 settings of the client, which the nodes use too.
    arguments : sequence of str
        The arguments of ``fruits``, such as ``["transform", "s3://…", "--cluster", "spark-yarn"]``.
    """
    # A flat object: YARN removes "}}" from command lines.
    settings = json.dumps({key: value for key, value in dataclasses.asdict(s3).items() if value})
    return {
        "Name": name,
        "ActionOnFailure": "TERMINATE_CLUSTER",
        "HadoopJarStep": {
            "Jar": "command-runner.jar",
            "Args": ["spark-submit", "--deploy-mode", "cluster", staged.step, folder, settings, *arguments],
        },
    }


def configurations(settings: EmrCluster, bucket: str) -> list[dict[str, Any]]:
    """Return the configurations of the applications, the content of ``config_jup_emr.json``."""
    result: list[dict[str, Any]] = [
        {"Classification": "spark-defaults", "Properties": SPARK | settings.conf},
        {"Classification": "yarn-site", "Properties": dict(YARN)},
        {
            "Classification": "spark-env",  # read by Livy, which runs the PySpark kernel of JupyterHub
            "Properties": {},
            "Configurations": [{"Classification": "export", "Properties": {"PYSPARK_PYTHON": PYTHON}}],
        },
    ]
    if settings.notebook:
        persistence = {"s3.persistence.enabled": "true", "s3.persistence.bucket": bucket}
        result.append({"Classification": "jupyter-s3-conf", "Properties": persistence})
    return result


def _instances(settings: EmrCluster, vpc: Vpc | None, *, keep_alive: bool) -> dict[str, Any]:
    instances: dict[str, Any] = {
        "InstanceFleets": _fleets(settings),
        "KeepJobFlowAliveWhenNoSteps": keep_alive,
        "TerminationProtected": False,
    }
    if vpc is not None:
        instances |= {
            "Ec2SubnetIds": list(vpc.subnets),
            "EmrManagedMasterSecurityGroup": vpc.master_group,
            "EmrManagedSlaveSecurityGroup": vpc.worker_group,
        }
        if vpc.service_group is not None:
            instances["ServiceAccessSecurityGroup"] = vpc.service_group
    if settings.key_pair is not None:
        instances["Ec2KeyName"] = settings.key_pair
    return instances


def _fleets(settings: EmrCluster) -> list[dict[str, Any]]:
    """Return the instance fleets; the unit of their capacity is one node."""

    def fleet(kind: str, types: Sequence[str], capacity: int, *, spot: bool = False) -> dict[str, Any]:
        volume = {"VolumeType": "gp3", "SizeInGB": settings.disk_gb}
        request: dict[str, Any] = {
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
            request["LaunchSpecifications"] = {
                "SpotSpecification": {
                    "TimeoutDurationMinutes": SPOT_MINUTES,
                    "TimeoutAction": "SWITCH_TO_ON_DEMAND",
                    "AllocationStrategy": "price-capacity-optimized",
                }
            }
        return request

    fleets = [
        fleet("MASTER", [settings.master_type], 1),
        fleet("CORE", settings.worker_types, settings.core_nodes),
    ]
    if settings.task_nodes:
        fleets.append(fleet("TASK", settings.worker_types, settings.task_nodes, spot=settings.spot))
    return fleets


def _scaling_limits(settings: EmrCluster) -> dict[str, Any]:
    nodes = settings.core_nodes + settings.task_nodes
    return {
        "UnitType": "InstanceFleetUnits",
        "MinimumCapacityUnits": settings.core_nodes,
        "MaximumCapacityUnits": nodes,
        "MaximumCoreCapacityUnits": settings.core_nodes,
        "MaximumOnDemandCapacityUnits": settings.core_nodes if settings.spot else nodes,
    }
