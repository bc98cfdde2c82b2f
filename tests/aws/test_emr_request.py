"""Requests to EMR, validated against botocore's service model without a server."""

from __future__ import annotations

from typing import Any

import botocore.session
import pytest
from botocore.model import ListShape, MapShape, Shape, StringShape, StructureShape
from botocore.validate import ParamValidator

from backends.aws.account.vpc import Vpc
from backends.aws.emr.releases import DEFAULT, RELEASES, release
from backends.aws.emr.request import PYTHON, configurations, job_flow, step_request
from backends.aws.staging.staged_files import StagedFiles
from fruits.clusters.clouds import EmrCluster
from fruits.clusters.cluster_file import BUILT_IN
from fruits.errors import SettingsError
from fruits.storage.s3.settings import S3Settings

STAGED = StagedFiles.for_python("my-fruits", "3.11")
VPC = Vpc(("subnet-1", "subnet-2"), "sg-master", "sg-worker", "sg-service")
ARGUMENTS = ["transform", "s3://a/b"]
STEP = step_request(
    "transform", staged=STAGED, folder="s3://my-fruits/fruits/jobs/x", s3=S3Settings(), arguments=ARGUMENTS
)
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
    return job_flow(settings, name="fruits-x", bucket="my-fruits", staged=STAGED, **more)


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
    [emr(**FULL), emr(spot=False), emr(task_nodes=0), *(emr(release=label) for label in RELEASES)],
    ids=lambda settings: settings.release,
)
@pytest.mark.parametrize("more", [{}, {"vpc": VPC, "steps": [STEP]}], ids=["alone", "with a step"])
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


def test_only_task_nodes_are_spot_with_on_demand_fallback() -> None:
    fleets = {fleet["InstanceFleetType"]: fleet for fleet in request(emr(task_nodes=7))["Instances"]["InstanceFleets"]}
    assert [fleets[kind].get("TargetSpotCapacity") for kind in ("MASTER", "CORE", "TASK")] == [None, None, 7]
    assert fleets["TASK"]["LaunchSpecifications"]["SpotSpecification"]["TimeoutAction"] == "SWITCH_TO_ON_DEMAND"
    limits = request(emr(task_nodes=7))["ManagedScalingPolicy"]["ComputeLimits"]
    assert (limits["MinimumCapacityUnits"], limits["MaximumCapacityUnits"]) == (1, 8)
    assert "ManagedScalingPolicy" not in request(emr(task_nodes=0))


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
    assert spark["spark.yarn.appMasterEnv.PYSPARK_PYTHON"] == PYTHON
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
    assert release(DEFAULT, for_job=True).spark.startswith("3.5.")
    assert (RELEASES["emr-6.9.0"].spark[:5], RELEASES["emr-6.9.0"].hadoop[:5]) == ("3.3.0", "3.3.3")


def test_unknown_and_unsupported_releases_are_rejected() -> None:
    with pytest.raises(SettingsError, match=r"release emr-5\.36\.0: unknown\. Allowed: emr-7\.13\.0"):
        request(emr(release="emr-5.36.0"))
    with pytest.raises(
        SettingsError,
        match=r"emr-6\.9\.0: not supported for jobs\. Its Spark 3\.3\.0 supports Python.*Allowed for",
    ):
        release("emr-6.9.0", for_job=True)
    assert_valid(request(emr(release="emr-6.9.0")))


def test_requests_contain_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush-hush")
    assert "hush-hush" not in repr(request(emr(**FULL), vpc=VPC, steps=[STEP]))
