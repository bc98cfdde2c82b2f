"""Requests to EMR, validated against botocore's service model without a server."""

from __future__ import annotations

from typing import Any

import botocore.session
import pytest
from botocore.model import ListShape, MapShape, Shape, StringShape, StructureShape
from botocore.validate import ParamValidator

from backends.aws.account.stack import Installed
from backends.aws.account.subnets import Subnets
from backends.aws.emr.releases import DEFAULT, RELEASES, release
from backends.aws.emr.request import PREFIX, configurations, job_flow, step_request
from backends.aws.staging.staged_files import StagedFiles
from fruits.clusters.clouds import EmrCluster
from fruits.clusters.cluster_file import BUILT_IN
from fruits.errors import SettingsError

STAGED = StagedFiles.for_release("my-fruits", release(DEFAULT))
INSTALLED = Installed("eu-west-3", "111122223333")
VPC = Subnets("vpc-1", ("subnet-1", "subnet-2"), private=True, cidr="10.0.0.0/24")
ARGUMENTS = ["transform", "s3://a/b"]
STEP = step_request("transform", STAGED, ARGUMENTS)
FULL = {
    "worker_types": ["c7i.4xlarge", "c7a.4xlarge"],
    "key_pair": "me",
    "security_configuration": "sealed",
    "tags": {"cost-centre": "42"},
    "conf": {"spark.executor.memory": "4g"},
    "notebook": True,
}


def emr(**settings: Any) -> EmrCluster:
    return EmrCluster(backend="spark", cloud="emr", **settings)


def request(settings: EmrCluster, **more: Any) -> dict[str, Any]:
    return job_flow(settings, name="fruits-x", staged=STAGED, installed=INSTALLED, **more)


def wrong_values(value: Any, shape: Shape, where: str = "") -> list[str]:
    """Return the strings that the service model does not allow; botocore checks names and types only."""
    match shape:
        case StructureShape():
            return [bad for name in value for bad in wrong_values(value[name], shape.members[name], f"{where}.{name}")]
        case ListShape():
            return [bad for item in value for bad in wrong_values(item, shape.member, f"{where}[]")]
        case MapShape():
            return []
        case StringShape() if shape.enum and value not in shape.enum:
            return [f"{where}: {value} is none of {shape.enum}"]
    return []


def assert_valid(given: dict[str, Any]) -> None:
    service = botocore.session.get_session().get_service_model("emr")
    shape = service.operation_model("RunJobFlow").input_shape
    assert ParamValidator().validate(given, shape).generate_report() == ""
    assert wrong_values(given, shape) == []


@pytest.mark.parametrize("name", [name for name, entry in BUILT_IN.clusters.items() if isinstance(entry, EmrCluster)])
def test_each_shipped_cluster_gives_a_valid_request(name: str) -> None:
    assert_valid(request(BUILT_IN.clusters[name]))


@pytest.mark.parametrize(
    "settings",
    [
        emr(**FULL),
        emr(spot=False),
        emr(task_nodes=0),
        emr(core_nodes=0, task_nodes=0),
        *(emr(release=label) for label in RELEASES),
    ],
    ids=lambda settings: settings.release,
)
@pytest.mark.parametrize("more", [{}, {"subnets": VPC, "steps": [STEP]}], ids=["alone", "with a step"])
def test_every_setting_gives_a_valid_request(settings: EmrCluster, more: dict[str, Any]) -> None:
    assert_valid(request(settings, **more))


def test_invalid_requests_are_detected() -> None:
    wrong = request(emr())
    wrong["ScaleDownBehavior"] = "NEVER"
    with pytest.raises(AssertionError, match="NEVER is none of"):
        assert_valid(wrong)
    with pytest.raises(AssertionError, match="ReleaseLable"):
        assert_valid(request(emr()) | {"ReleaseLable": "x"})


def test_a_job_cluster_ends_with_the_job_and_a_long_lived_one_when_idle() -> None:
    for_a_job, long_lived = request(emr(), steps=[STEP]), request(emr(idle_minutes=30))
    assert for_a_job["Instances"]["KeepJobFlowAliveWhenNoSteps"] is False
    assert for_a_job["Steps"][0]["ActionOnFailure"] == "TERMINATE_CLUSTER"
    assert long_lived["Instances"]["KeepJobFlowAliveWhenNoSteps"] is True
    assert long_lived["AutoTerminationPolicy"] == {"IdleTimeout": 1800}
    assert not for_a_job["Instances"]["TerminationProtected"]


def fleets_of(settings: EmrCluster) -> dict[str, dict[str, Any]]:
    return {fleet["InstanceFleetType"]: fleet for fleet in request(settings)["Instances"]["InstanceFleets"]}


def test_only_task_nodes_are_spot_with_on_demand_fallback() -> None:
    fleets = fleets_of(emr(task_nodes=7))
    assert [fleets[kind].get("TargetSpotCapacity") for kind in ("MASTER", "CORE", "TASK")] == [None, None, 7]
    assert fleets["TASK"]["LaunchSpecifications"]["SpotSpecification"]["TimeoutAction"] == "SWITCH_TO_ON_DEMAND"


def test_a_job_has_a_fixed_size_and_a_long_lived_cluster_scales() -> None:
    # Managed scaling fills the on-demand limit before it adds Spot nodes: the limit is the core node, or everything.
    assert "ManagedScalingPolicy" not in request(emr(task_nodes=7), steps=[STEP])
    limits = request(emr(task_nodes=7))["ManagedScalingPolicy"]["ComputeLimits"]
    assert (limits["MinimumCapacityUnits"], limits["MaximumCapacityUnits"]) == (1, 8)
    assert limits["MaximumOnDemandCapacityUnits"] == 1
    assert (
        request(emr(task_nodes=7, spot=False))["ManagedScalingPolicy"]["ComputeLimits"]["MaximumOnDemandCapacityUnits"]
        == 8
    )
    assert "ManagedScalingPolicy" not in request(emr(task_nodes=0))


def test_the_driver_is_kept_off_spot_nodes_where_there_are_any() -> None:
    def labels(settings: EmrCluster) -> dict[str, str]:
        found = {each["Classification"]: each["Properties"] for each in configurations(settings, "my-fruits")}
        return found.get("yarn-site", {})

    assert labels(emr())["yarn.node-labels.am.default-node-label-expression"] == "CORE"
    for without in (emr(task_nodes=0), emr(spot=False), emr(core_nodes=0, task_nodes=0)):
        assert labels(without) == {}


def test_a_notebook_and_a_job_have_their_drivers_at_once() -> None:
    found = {each["Classification"]: each["Properties"] for each in configurations(emr(), "my-fruits")}
    share = float(found["capacity-scheduler"]["yarn.scheduler.capacity.maximum-am-resource-percent"])
    yarn = 12  # GiB that YARN allocates of a c7i.2xlarge
    driver = 4
    assert 2 * driver <= share * yarn


def test_a_driver_may_list_images_for_hours_before_its_context_exists() -> None:
    found = {each["Classification"]: each["Properties"] for each in configurations(emr(max_hours=5), "my-fruits")}
    assert found["spark-defaults"]["spark.yarn.am.waitTime"] == "5h"


def test_the_master_node_alone_does_all_work_without_others() -> None:
    assert list(fleets_of(emr(core_nodes=0, task_nodes=0))) == ["MASTER"]


def test_every_cluster_ends_after_its_hours() -> None:
    (action,) = request(emr(max_hours=3))["BootstrapActions"]
    assert action["ScriptBootstrapAction"]["Args"] == [STAGED.wheelhouse, "/opt/fruits", "python3.11", "180"]


def test_private_subnets_have_the_service_group() -> None:
    assert request(emr(), subnets=VPC)["Instances"]["ServiceAccessSecurityGroup"] == "sg-service"
    public = Subnets("vpc-1", ("subnet-1",), private=False, cidr="10.0.0.0/24")
    assert "ServiceAccessSecurityGroup" not in request(emr(), subnets=public)["Instances"]


def test_the_seed_cluster_is_that_of_the_original_chain() -> None:
    """emr-6.9.0 (Spark 3.3.0, Hadoop 3.3.3, JupyterHub 1.4.1), m5.xlarge 1 + 1, logging, a bootstrap action."""
    settings = BUILT_IN.clusters["emr-seed"]
    assert isinstance(settings, EmrCluster)
    found = request(settings.model_copy(update={"key_pair": "mine"}), subnets=VPC)
    assert_valid(found)
    assert found["ReleaseLabel"] == "emr-6.9.0"
    assert [each["Name"] for each in found["Applications"]] == ["Spark", "Livy", "JupyterHub"]
    shape = [
        (fleet["InstanceFleetType"], fleet["TargetOnDemandCapacity"], fleet["InstanceTypeConfigs"][0]["InstanceType"])
        for fleet in found["Instances"]["InstanceFleets"]
    ]
    assert shape == [("MASTER", 1, "m5.xlarge"), ("CORE", 1, "m5.xlarge")]
    assert found["Instances"]["Ec2KeyName"] == "mine"
    assert found["LogUri"] == "s3://my-fruits/fruits/logs/"
    (bootstrap,) = found["BootstrapActions"]
    assert bootstrap["ScriptBootstrapAction"]["Args"][2:] == ["python3.11", "720", STAGED.python_archive]
    assert found["AutoTerminationPolicy"] == {"IdleTimeout": 3600}
    kinds = {each["Classification"]: each["Properties"] for each in found["Configurations"]}
    assert kinds["jupyter-s3-conf"]["s3.persistence.bucket"] == "my-fruits"
    assert kinds["spark-defaults"]["spark.yarn.appMasterEnv.FRUITS_MODEL"] == "s3://my-fruits/model"
    assert "yarn-site" not in kinds


def test_the_cluster_is_tagged_with_the_job() -> None:
    tags = {tag["Key"]: tag["Value"] for tag in request(emr(tags={"cost-centre": "42"}))["Tags"]}
    assert tags == {
        "fruits": "fruits-x",
        "cost-centre": "42",
        "for-use-with-amazon-emr-managed-policies": "true",
    }


def test_a_node_runs_our_environment_and_the_users_properties_win() -> None:
    found = {entry["Classification"]: entry for entry in configurations(emr(**FULL), "my-fruits")}
    spark = found["spark-defaults"]["Properties"]
    assert spark["spark.yarn.appMasterEnv.PYSPARK_PYTHON"] == f"{PREFIX}/bin/python"
    assert (spark["spark.executor.memory"], spark["spark.executor.cores"]) == ("4g", "4")
    assert found["jupyter-s3-conf"]["Properties"] == {
        "s3.persistence.enabled": "true",
        "s3.persistence.bucket": "my-fruits",
    }
    assert "jupyter-s3-conf" not in {entry["Classification"] for entry in configurations(emr(), "my-fruits")}


def test_the_notebook_brings_jupyterhub() -> None:
    assert [entry["Name"] for entry in request(emr())["Applications"]] == ["Spark"]
    assert "JupyterHub" in [entry["Name"] for entry in request(emr(notebook=True))["Applications"]]


def test_the_default_release_is_the_newest_one() -> None:
    assert emr().release == DEFAULT == max(RELEASES, key=lambda label: [int(n) for n in label[4:].split(".")])
    assert release(DEFAULT).spark.startswith("3.5.")
    assert (RELEASES["emr-6.9.0"].spark[:5], RELEASES["emr-6.9.0"].hadoop[:5]) == ("3.3.0", "3.3.3")


def test_unknown_releases_are_rejected() -> None:
    with pytest.raises(SettingsError, match=r"release emr-5\.36\.0: unknown\. Allowed: emr-7\.13\.0"):
        request(emr(release="emr-5.36.0"))


def test_requests_contain_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush-hush")
    assert "hush-hush" not in repr(request(emr(**FULL), subnets=VPC, steps=[STEP]))
