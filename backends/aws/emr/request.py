"""Requests to EMR as pure functions of the settings: the cluster (``run_job_flow``) and its steps.

Of the 16 GiB of a ``c7i.2xlarge`` (8 vCPUs) or an ``m5.xlarge``, YARN allocates 12: two executors of four cores and
5 GiB each, or one and the driver's 4 GiB. Most of an executor's memory is outside of Java, for its four Python workers.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from backends.aws.account.stack import Installed
from backends.aws.account.subnets import Subnets
from backends.aws.account.tags import aws_tags, tags_of
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
NODE_LABELS = {"yarn.node-labels.enabled": "true", "yarn.node-labels.am.default-node-label-expression": "CORE"}
# YARN grants 10 % of a queue to drivers, of which a second one would not start while a notebook is open.
DRIVERS = {
    "yarn.scheduler.capacity.maximum-am-resource-percent": "0.8",
    "yarn.scheduler.capacity.root.default.accessible-node-labels.CORE.maximum-am-resource-percent": "0.8",
}


def job_flow(
    settings: EmrCluster,
    *,
    name: str,
    bucket: str,
    staged: StagedFiles,
    installed: Installed,
    subnets: Subnets | None = None,
    steps: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Return the keyword arguments of ``run_job_flow``.

    With steps, the cluster has a fixed size and ends after the last one; without, it scales with its load, and shuts
    down after ``idle_minutes``.

    Parameters
    ----------
    settings : EmrCluster
    name : str
        The name of the job or of the long-lived cluster; the tag of every resource.
    bucket : str
        The bucket of the logs and the notebooks, without ``s3://``.
    staged : StagedFiles
    installed : Installed
    subnets : Subnets, optional
        Omitted by ``render``, whose request is for reading.
    steps : sequence of mapping
        Requests from :func:`step_request`.

    Raises
    ------
    SettingsError
        The release is unknown.
    """
    contents = release(settings.release)
    bootstrap = [staged.wheelhouse, PREFIX, f"python{contents.python}", str(settings.max_hours * 60)]
    request: dict[str, Any] = {
        "Name": name,
        "ReleaseLabel": settings.release,
        "Applications": [{"Name": name} for name in ("Spark", *(("Livy", "JupyterHub") if settings.notebook else ()))],
        "LogUri": f"s3://{bucket}/fruits/logs/",
        "ServiceRole": installed.service_role,
        "JobFlowRole": installed.node_profile,
        "SecurityConfiguration": settings.security_configuration or installed.security_configuration,
        "Instances": _instances(settings, installed, subnets, keep_alive=not steps),
        "Configurations": configurations(settings, bucket),
        "BootstrapActions": [
            {
                "Name": BOOTSTRAP_NAME,
                "ScriptBootstrapAction": {
                    "Path": staged.bootstrap,
                    "Args": [*bootstrap, *([staged.python_archive] if contents.brings_python else [])],
                },
            }
        ],
        "Tags": aws_tags(tags_of(name, settings.tags)),
        "VisibleToAllUsers": True,
        "EbsRootVolumeSize": 30,
        "ScaleDownBehavior": "TERMINATE_AT_TASK_COMPLETION",
    }
    if steps:
        return request | {"Steps": list(steps)}
    request["AutoTerminationPolicy"] = {"IdleTimeout": settings.idle_minutes * 60}
    if settings.task_nodes:
        request["ManagedScalingPolicy"] = {"ComputeLimits": _scaling_limits(settings)}
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
    # YARN ends a driver without a SparkContext after 100 s; listing a large data set comes first.
    spark = SPARK | {"spark.yarn.am.waitTime": f"{settings.max_hours}h"}
    if settings.notebook:  # Livy's sessions, of the kernel PySpark, run in cluster mode
        places = {"IMAGES": "images", "MODEL": "model", "OUT": "notebook"}
        spark |= {f"spark.yarn.appMasterEnv.FRUITS_{key}": f"s3://{bucket}/{to}" for key, to in places.items()}
    result: list[dict[str, Any]] = [
        {"Classification": "spark-defaults", "Properties": spark | settings.conf},
        {"Classification": "capacity-scheduler", "Properties": dict(DRIVERS)},
        {
            "Classification": "spark-env",  # read by Livy, which runs the PySpark kernel of JupyterHub
            "Properties": {},
            "Configurations": [{"Classification": "export", "Properties": {"PYSPARK_PYTHON": PYTHON}}],
        },
    ]
    if settings.task_nodes and settings.spot:
        result.append({"Classification": "yarn-site", "Properties": dict(NODE_LABELS)})
    if settings.notebook:
        persistence = {"s3.persistence.enabled": "true", "s3.persistence.bucket": bucket}
        result.append({"Classification": "jupyter-s3-conf", "Properties": persistence})
    return result


def _instances(
    settings: EmrCluster, installed: Installed, subnets: Subnets | None, *, keep_alive: bool
) -> dict[str, Any]:
    instances: dict[str, Any] = {
        "InstanceFleets": _fleets(settings),
        "KeepJobFlowAliveWhenNoSteps": keep_alive,
        "TerminationProtected": False,
        "EmrManagedMasterSecurityGroup": installed.master_group,
        "EmrManagedSlaveSecurityGroup": installed.worker_group,
    }
    if subnets is not None:
        instances["Ec2SubnetIds"] = list(subnets.identifiers)
        if subnets.private:
            instances["ServiceAccessSecurityGroup"] = installed.service_group
    if settings.key_pair is not None:
        instances["Ec2KeyName"] = settings.key_pair
    return instances


def _fleets(settings: EmrCluster) -> list[dict[str, Any]]:
    """Return the instance fleets; the unit of their capacity is one node."""
    fleets = [_fleet(settings, "MASTER", [settings.master_type], 1)]
    if settings.core_nodes:
        fleets.append(_fleet(settings, "CORE", settings.worker_types, settings.core_nodes))
    if settings.task_nodes:
        fleets.append(_fleet(settings, "TASK", settings.worker_types, settings.task_nodes, spot=settings.spot))
    return fleets


def _fleet(
    settings: EmrCluster, kind: str, types: Sequence[str], capacity: int, *, spot: bool = False
) -> dict[str, Any]:
    volume = {"VolumeType": "gp3", "SizeInGB": settings.disk_gb}
    disks = {"EbsBlockDeviceConfigs": [{"VolumeSpecification": volume, "VolumesPerInstance": 1}]}
    request: dict[str, Any] = {
        "Name": kind.lower(),
        "InstanceFleetType": kind,
        "TargetSpotCapacity" if spot else "TargetOnDemandCapacity": capacity,
        "InstanceTypeConfigs": [
            {"InstanceType": each, "WeightedCapacity": 1, "EbsConfiguration": disks} for each in types
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


def _scaling_limits(settings: EmrCluster) -> dict[str, Any]:
    """Return the limits of a long-lived cluster.

    Managed scaling fills the on-demand limit first, and adds Spot nodes only beyond it: the limit decides the market of
    task nodes: https://docs.aws.amazon.com/emr/latest/ManagementGuide/managed-scaling-allocation-strategy.html
    """
    nodes = settings.core_nodes + settings.task_nodes
    return {
        "UnitType": "InstanceFleetUnits",
        "MinimumCapacityUnits": settings.core_nodes,
        "MaximumCapacityUnits": nodes,
        "MaximumCoreCapacityUnits": settings.core_nodes,
        "MaximumOnDemandCapacityUnits": settings.core_nodes if settings.spot else nodes,
    }
