"""Requests to EMR as pure functions of the settings: the cluster (``run_job_flow``) and its steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

import yaml

from backends.aws.account.stack import Installed
from backends.aws.account.subnets import Subnets
from backends.aws.account.tags import aws_tags, tags_of
from backends.aws.emr.releases import release
from backends.aws.job_arguments import submit_arguments
from backends.aws.staging.staged_files import StagedFiles
from fruits.clusters.clouds import EmrCluster

PREFIX = "/opt/fruits"  # of the virtual environment on every node
SPOT_MINUTES = 10
BOOTSTRAP_NAME = "fruits environment"
CONFIGURATIONS = files("backends.aws.emr") / "configurations.yaml"


def job_flow(
    settings: EmrCluster,
    *,
    name: str,
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
    staged : StagedFiles
        In the bucket of the logs and the notebooks.
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
    arguments = [staged.wheelhouse, PREFIX, f"python{contents.python}", str(settings.max_hours * 60)]
    if contents.brings_python:
        arguments.append(staged.python_archive)
    bootstrap = {"Path": staged.bootstrap, "Args": arguments}
    request: dict[str, Any] = {
        "Name": name,
        "ReleaseLabel": settings.release,
        "Applications": [{"Name": name} for name in ("Spark", *(("Livy", "JupyterHub") if settings.notebook else ()))],
        "LogUri": f"s3://{staged.bucket}/fruits/logs/",
        "ServiceRole": installed.service_role,
        "JobFlowRole": installed.node_profile,
        "SecurityConfiguration": settings.security_configuration or installed.security_configuration,
        "Instances": _instances(settings, installed, subnets, keep_alive=not steps),
        "Configurations": configurations(settings, staged.bucket),
        "BootstrapActions": [{"Name": BOOTSTRAP_NAME, "ScriptBootstrapAction": bootstrap}],
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


def step_request(name: str, staged: StagedFiles, arguments: Sequence[str]) -> dict[str, Any]:
    """Return the step that runs ``fruits ARGUMENTS`` under spark-submit.

    Parameters
    ----------
    name : str
    staged : StagedFiles
    arguments : sequence of str
        The arguments of ``fruits``, such as ``["transform", "s3://…", "--cluster", "spark-yarn"]``.
    """
    submit = ["spark-submit", "--deploy-mode", "cluster", *submit_arguments(name, staged, arguments)]
    return {
        "Name": name,
        "ActionOnFailure": "TERMINATE_CLUSTER",
        "HadoopJarStep": {"Jar": "command-runner.jar", "Args": submit},
    }


def configurations(settings: EmrCluster, bucket: str) -> list[dict[str, Any]]:
    """Return the configurations of the applications, the content of ``config_jup_emr.json``."""
    listed: list[dict[str, Any]] = yaml.safe_load(CONFIGURATIONS.read_text(encoding="utf-8"))
    properties = {each["Classification"]: each["Properties"] for each in listed}
    spark = properties["spark-defaults"]
    # YARN ends a driver without a SparkContext after 100 s; listing a large data set comes first.
    spark["spark.yarn.am.waitTime"] = f"{settings.max_hours}h"
    if settings.notebook:  # Livy's sessions, of the kernel PySpark, run in cluster mode
        places = {"IMAGES": "images", "MODEL": "model", "OUT": "notebook"}
        spark |= {f"spark.yarn.appMasterEnv.FRUITS_{key}": f"s3://{bucket}/{to}" for key, to in places.items()}
    spark |= settings.conf
    properties["jupyter-s3-conf"]["s3.persistence.bucket"] = bucket
    wanted = {"yarn-site": settings.spot and settings.task_nodes > 0, "jupyter-s3-conf": settings.notebook}
    return [each for each in listed if wanted.get(each["Classification"], True)]


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
    workers = settings.worker_types
    fleets = [
        ("MASTER", [settings.master_type], 1, False),
        ("CORE", workers, settings.core_nodes, False),
        ("TASK", workers, settings.task_nodes, settings.spot),
    ]
    return [_fleet(settings, kind, types, capacity, spot=spot) for kind, types, capacity, spot in fleets if capacity]


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
