"""``fruits cluster init`` and ``remove``, and the messages of AWS errors; against moto's server."""

from __future__ import annotations

import io
import json
from typing import Any

import botocore.client
import pytest
from botocore.exceptions import ClientError, WaiterError
from cfnlint.api import lint
from cfnlint.config import ManualArgs
from moto.core import DEFAULT_ACCOUNT_ID

from backends.aws import cli
from backends.aws import doctor as aws_doctor
from backends.aws.account.clients import Account, region_of, translated_errors
from backends.aws.account.prerequisites import SERVICE_LINKED
from backends.aws.account.stack import ChangeSet, apply, find_installed, key_arn, propose, remove, template
from backends.aws.account.subnets import find_subnets
from backends.aws.account.tags import MANAGED, TAG
from backends.aws.emr.releases import DEFAULT, release
from backends.aws.emr.request import job_flow
from backends.aws.staging.staged_files import StagedFiles
from fruits.cli.main import main
from fruits.clusters.clouds import EmrCluster
from fruits.errors import InputError, JobError, SettingsError
from fruits.storage.s3.settings import S3Settings
from tests.aws.conftest import REGION, install
from tests.aws.iam import resources

EMR = EmrCluster(backend="spark", cloud="emr")
STAGED = StagedFiles.for_release("my-fruits", release(DEFAULT))
KEY = "arn:aws:kms:eu-west-3:111122223333:key/0a1b2c3d-0000-0000-0000-000000000000"


def init(*arguments: str, bucket: str = "my-fruits") -> dict[str, Any]:
    answer: Any = cli.call(["init", f"s3://{bucket}", "--region", REGION, *arguments])
    return dict(answer.values)


def names(account: Account) -> list[str]:
    return sorted(role["RoleName"] for role in account.client("iam").list_roles(PathPrefix="/")["Roles"])


def linked(account: Account) -> list[dict[str, Any]]:
    return list(account.client("iam").list_roles(PathPrefix="/aws-service-role/")["Roles"])


def test_the_template_is_valid() -> None:
    assert linted(template()) == []
    assert "E3012" in linted(template().replace("FromPort: 9443", "FromPort: nine"))[0]
    assert len(template().encode()) < 51_200  # CloudFormation's limit for a template in a request


def linted(text: str) -> list[str]:
    return [f"{found.rule.id}: {found}" for found in lint(text, ManualArgs(regions=[REGION]))]


def test_init_shows_the_changes_and_makes_them_once(account: Account) -> None:
    dry = init("--dry-run")
    assert not dry["made"]
    assert ["Add", "AWS::IAM::Role", "NodeRole"] in dry["changes"]
    assert any("service-linked role of spot.amazonaws.com" in change[2] for change in dry["changes"])
    assert names(account) == []
    assert account.client("s3").list_buckets()["Buckets"] == []

    made = init("--yes", "--read", "s3://others")
    assert made == {"changes": made["changes"], "made": True}
    assert [change[2] for change in made["changes"]] == [change[2] for change in dry["changes"]]
    assert f"fruits-node-{REGION}" in names(account)
    assert {role["Path"].split("/")[2] for role in linked(account)} == set(SERVICE_LINKED)
    for subnet in account.client("ec2").describe_subnets()["Subnets"]:
        assert {"Key": MANAGED[0], "Value": MANAGED[1]} in subnet["Tags"]
    iam = account.client("iam")
    others = iam.get_role_policy(RoleName=f"fruits-node-{REGION}", PolicyName="others")["PolicyDocument"]
    assert [each["Resource"] for each in others["Statement"]] == [["arn:aws:s3:::others"], ["arn:aws:s3:::others/*"]]
    (bucket,) = account.client("s3").list_buckets()["Buckets"]
    assert bucket["Name"] == "my-fruits"


def test_an_unanswered_question_leaves_no_stack(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    with pytest.raises(SettingsError, match="Cannot ask"):
        init()
    assert account.client("cloudformation").describe_stacks()["Stacks"] == []


def test_a_second_init_keeps_what_is_not_given(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    init("--yes", "--read", "s3://others")
    sent: list[dict[str, Any]] = []
    make = botocore.client.BaseClient._make_api_call

    def recorded(self: Any, operation: str, given: dict[str, Any]) -> Any:
        if operation == "CreateChangeSet":
            sent.append(given)
        return make(self, operation, given)

    monkeypatch.setattr(botocore.client.BaseClient, "_make_api_call", recorded)
    propose(account, "my-fruits", "vpc-1", user="ada", s3=S3Settings())
    (request,) = sent
    assert request["ChangeSetType"] == "UPDATE"
    assert {each["ParameterKey"]: each.get("ParameterValue") for each in request["Parameters"]} == {
        "Bucket": "my-fruits",
        "CreateBucket": "true",
        "Vpc": "vpc-1",
        "ReadBuckets": None,
        "ReadObjects": None,
        "BucketKey": None,
        "User": "ada",
    }
    assert all(each.get("UsePreviousValue") for each in request["Parameters"] if "ParameterValue" not in each)


def test_a_failed_stack_is_reported_with_its_reasons(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = {"LogicalResourceId": "NodeRole", "ResourceStatus": "CREATE_FAILED", "ResourceStatusReason": "No."}
    cloudformation = account.client("cloudformation")

    class Failing:
        def wait(self, **given: object) -> None:
            raise WaiterError("stack_create_complete", "rolled back", {})

    proposed = propose(account, "my-fruits", "vpc-1", user=None, s3=S3Settings())
    monkeypatch.setattr(cloudformation, "execute_change_set", lambda **given: None)
    monkeypatch.setattr(cloudformation, "get_waiter", lambda name: Failing())
    monkeypatch.setattr(cloudformation, "describe_stack_events", lambda **given: {"StackEvents": [failed]})
    with pytest.raises(JobError, match=r"The stack fruits failed: NodeRole: No\."):
        apply(account, proposed)


def test_an_existing_bucket_is_not_a_resource_of_the_stack(account: Account) -> None:
    where = {"LocationConstraint": REGION}
    account.client("s3").create_bucket(Bucket="my-fruits", CreateBucketConfiguration=where)
    install(account)  # moto lists the resources of a condition that is false as changes, but does not create them
    stack = account.client("cloudformation")
    resources = stack.describe_stack_resources(StackName="fruits")["StackResources"]
    assert "DataBucket" not in {each.get("LogicalResourceId") for each in resources}
    (before,) = (
        each for each in stack.describe_stacks()["Stacks"][0]["Parameters"] if each["ParameterKey"] == "CreateBucket"
    )
    assert before["ParameterValue"] == "false"
    cli.call(["remove", "--region", REGION, "--yes"])
    account.client("s3").head_bucket(Bucket="my-fruits")


def test_the_bucket_of_another_account_is_refused(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    make = botocore.client.BaseClient._make_api_call

    def taken(self: Any, operation: str, given: dict[str, Any]) -> Any:
        if operation == "HeadBucket":  # S3's answer has no message
            raise ClientError({"Error": {"Code": "403", "Message": "Forbidden"}, "ResponseMetadata": {}}, operation)
        return make(self, operation, given)

    monkeypatch.setattr(botocore.client.BaseClient, "_make_api_call", taken)
    with pytest.raises(SettingsError, match=r"s3://fruits exists, and you have no access to it\. .* give another one"):
        init("--yes", bucket="fruits")
    assert account.client("cloudformation").describe_stacks()["Stacks"] == []


def test_a_bucket_in_another_region_is_refused(account: Account) -> None:
    Account("us-east-1").client("s3").create_bucket(Bucket="elsewhere")
    with pytest.raises(SettingsError, match=r"in us-east-1, not in eu-west-3\. Give --region us-east-1, or another"):
        init("--yes", bucket="elsewhere")


@pytest.mark.parametrize(
    "command", ["init s3://my-fruits", "status", "down --all", "ssh a", "remove", "logs a --bucket s3://my-fruits"]
)
def test_a_missing_profile_is_bad_input(account: Account, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nonsuch")
    with pytest.raises(InputError, match=r"The config profile \(nonsuch\) could not be found\. Give others by"):
        cli.call([*command.split(), "--region", REGION])


def test_the_user_receives_the_policies(account: Account) -> None:
    account.client("iam").create_user(UserName="ada")
    init("--yes", "--user", "ada")
    attached = account.client("iam").list_attached_user_policies(UserName="ada")["AttachedPolicies"]
    assert {each["PolicyName"] for each in attached} == {f"fruits-user-{REGION}", f"fruits-user-dask-{REGION}"}
    for each in attached:
        version = account.client("iam").get_policy_version(PolicyArn=each["PolicyArn"], VersionId="v1")
        size = len(json.dumps(version["PolicyVersion"]["Document"], separators=(",", ":")))
        assert size < 6_144  # IAM's limit


def test_an_unknown_user_is_refused_before_anything_is_made(account: Account) -> None:
    message = r"--user adda: the account has no such IAM user\. Allowed: .*list-users.*create-user --user-name adda"
    with pytest.raises(SettingsError, match=message):
        init("--yes", "--user", "adda")
    assert account.client("cloudformation").describe_stacks()["Stacks"] == []
    assert linked(account) == []


def test_ctrl_c_during_the_deployment_says_that_it_continues(
    account: Account, capfd: pytest.CaptureFixture[str]
) -> None:
    make = botocore.client.BaseClient._make_api_call
    sent: list[str] = []

    def interrupted(self: Any, operation: str, given: dict[str, Any]) -> Any:
        sent.append(operation)
        if "ExecuteChangeSet" in sent[:-1]:  # CloudFormation is at work
            raise KeyboardInterrupt
        return make(self, operation, given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(botocore.client.BaseClient, "_make_api_call", interrupted)
        with pytest.raises(SystemExit) as ended:
            main(["cluster", "init", "s3://my-fruits", "--region", REGION, "--yes"])
    assert ended.value.code == 130
    shown = " ".join(capfd.readouterr().err.split())
    place = f"--stack-name fruits --region {REGION}"
    assert "The deployment of the stack fruits continues in AWS." in shown
    assert (
        f"To look at it: aws cloudformation describe-stack-events {place}. To undo it: fruits cluster remove" in shown
    )
    assert sent[-2] == "ExecuteChangeSet"  # nothing is undone behind the user's back
    update = ChangeSet("1", "2", "UPDATE", []).continues(REGION)
    assert update.endswith(f"To undo it: aws cloudformation cancel-update-stack {place}")


def test_a_creation_that_was_interrupted_can_be_removed(installed: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    """Resources that CloudFormation has not made yet have no identifier."""
    cloudformation = installed.client("cloudformation")
    listed = cloudformation.describe_stack_resources(StackName="fruits")["StackResources"]
    (pending,) = (each for each in listed if each.get("LogicalResourceId") == "ServiceGroup")
    del pending["PhysicalResourceId"]
    monkeypatch.setattr(cloudformation, "describe_stack_resources", lambda **given: {"StackResources": listed})
    assert remove(installed) == "my-fruits"
    assert names(installed) == []


def test_a_kms_key_must_be_an_arn(account: Account) -> None:
    assert key_arn(S3Settings(encryption="aws:kms", kms_key=KEY)) == KEY
    with pytest.raises(SettingsError, match="alias/fruits: not an ARN"):
        key_arn(S3Settings(encryption="aws:kms", kms_key="alias/fruits"))


def test_the_security_groups_admit_only_the_service_on_9443(installed: Account) -> None:
    found, subnets = find_installed(installed), find_subnets(installed, EMR)
    ec2 = installed.client("ec2")
    groups = {
        group["GroupId"]: group
        for group in ec2.describe_security_groups(
            GroupIds=[found.master_group, found.worker_group, found.service_group]
        )["SecurityGroups"]
    }
    assert groups[found.master_group]["IpPermissions"] == groups[found.worker_group]["IpPermissions"] == []
    (rule,) = groups[found.service_group]["IpPermissions"]
    assert (rule["FromPort"], rule["ToPort"], rule["IpProtocol"]) == (9443, 9443, "tcp")
    assert [pair["GroupId"] for pair in rule["UserIdGroupPairs"]] == [found.master_group]
    for group in groups.values():
        assert group["VpcId"] == subnets.vpc
        assert {tag["Key"]: tag["Value"] for tag in group["Tags"]} == {TAG: "init", MANAGED[0]: MANAGED[1]}


def test_emr_nodes_use_imdsv2_and_encrypted_volumes(installed: Account) -> None:
    content = resources()["SecurityConfiguration"]["Properties"]["SecurityConfiguration"]
    assert content["InstanceMetadataServiceConfiguration"]["MinimumInstanceMetadataServiceVersion"] == 2
    rest = content["EncryptionConfiguration"]["AtRestEncryptionConfiguration"]["LocalDiskEncryptionConfiguration"]
    assert rest == {"EnableEbsEncryption": True, "EncryptionKeyProviderType": "AwsKms", "AwsKmsKey": "VolumeKey.Arn"}
    found = find_installed(installed)
    requested = job_flow(EMR, name="a", staged=STAGED, installed=found)
    assert requested["SecurityConfiguration"] == found.security_configuration


def test_without_the_stack_a_cluster_names_init(account: Account) -> None:
    with pytest.raises(SettingsError, match=r"The stack fruits does not exist in eu-west-3\. .*fruits cluster init"):
        find_installed(account)


def test_remove_deletes_the_stack_and_reports_the_bucket(installed: Account) -> None:
    found, ec2 = find_installed(installed), installed.client("ec2")
    for group, other in ((found.master_group, found.worker_group), (found.worker_group, found.master_group)):
        pairs = [{"IpProtocol": "tcp", "FromPort": 0, "ToPort": 65535, "UserIdGroupPairs": [{"GroupId": other}]}]
        ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=pairs)  # as EMR does
    answer: Any = cli.call(["remove", "--region", REGION, "--yes"])
    assert answer.values["removed"]
    assert "s3://my-fruits" in answer.values["remains"][0]
    assert names(installed) == []
    left = ec2.describe_security_groups()["SecurityGroups"]
    assert not [group for group in left if group["GroupName"].startswith("fruits-")]
    again: Any = cli.call(["remove", "--region", REGION, "--yes"])
    assert again.values == {"removed": False}


def test_the_doctor_names_what_is_missing_and_its_remedy(account: Account, quotas: dict[str, float]) -> None:
    def examined() -> dict[str, tuple[str, str]]:
        answer: Any = cli.call(["doctor", "--bucket", "s3://my-fruits", "--region", REGION])
        assert answer.exit_code == (1 if answer.values["failed"] else 0)
        return {check["name"]: (check["state"], check["detail"]) for check in answer.values["checks"]}

    empty = examined()
    assert {name for name, (state, _) in empty.items() if state == "failed"} == {
        "stack",
        "bucket",
        "subnets",
        "staged files",
    }
    assert "fruits cluster init" in empty["stack"][1]
    assert "fruits cluster init" in empty["subnets"][1]
    init("--yes")
    quotas |= dict.fromkeys(quotas, 5.0)
    found = examined()
    assert {name for name, (state, _) in found.items() if state == "failed"} == {"quotas"}
    assert "core_nodes: 0" in found["quotas"][1]
    assert account.identity() not in str(found)
    elsewhere = "ap-south-1"  # without a known price
    answer: Any = cli.call(["doctor", "--bucket", "s3://my-fruits", "--region", elsewhere])
    assert [each["state"] for each in answer.values["checks"] if each["name"] == "price"] == ["unknown"]


def test_the_doctor_stops_at_refused_credentials_and_hides_the_account(
    installed: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(account: Account) -> None:
        raise InputError(f"User: arn:aws:iam::{account.identity()}:user/ada is not authorized.")

    command = ["doctor", "--bucket", "s3://my-fruits", "--region", REGION]
    with monkeypatch.context() as patch:
        patch.setattr(aws_doctor, "find_resources", refused)
        answer: Any = cli.call(command)
    assert (
        answer.values["checks"][-1]["detail"]
        == f"User: arn:aws:iam::…{DEFAULT_ACCOUNT_ID[-4:]}:user/ada is not authorized."
    )
    Refused(monkeypatch, "ExpiredToken")
    answer = cli.call(command)
    assert [each["name"] for each in answer.values["checks"]] == ["versions", "tools", "credentials"]
    assert answer.exit_code == 1


def test_remove_refuses_while_clusters_run(installed: Account) -> None:
    tags = [{"ResourceType": "instance", "Tags": [{"Key": TAG, "Value": "a-job"}]}]
    installed.client("ec2").run_instances(ImageId="ami-12c6146b", MinCount=1, MaxCount=1, TagSpecifications=tags)
    with pytest.raises(SettingsError, match="Still running: a-job"):
        cli.call(["remove", "--region", REGION, "--yes"])


@pytest.mark.parametrize(
    ("location", "region"), [(None, "us-east-1"), ("", "us-east-1"), ("EU", "eu-west-1"), ("eu-west-3", "eu-west-3")]
)
def test_old_bucket_locations_are_translated_to_regions(
    account: Account, monkeypatch: pytest.MonkeyPatch, location: str | None, region: str
) -> None:
    monkeypatch.setattr(
        botocore.client.BaseClient, "_make_api_call", lambda self, operation, given: {"LocationConstraint": location}
    )
    assert region_of("my-fruits") == region


class Refused:
    """Makes every request fail with one error."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, code: str, message: str = "No.") -> None:
        answer = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {}}

        def refuse(self: object, operation: str, parameters: object) -> None:
            raise ClientError(answer, operation)

        monkeypatch.setattr(botocore.client.BaseClient, "_make_api_call", refuse)


@pytest.mark.parametrize(
    ("code", "kind", "message"),
    [
        ("ExpiredToken", InputError, r"AWS does not accept the credentials \(ExpiredToken\)\. Give others"),
        ("SignatureDoesNotMatch", InputError, "does not accept the credentials"),
        ("AccessDenied", InputError, r"GetCallerIdentity is not permitted\. .*"),
        ("Throttling", JobError, "Could not look up the AWS account: GetCallerIdentity: No."),
    ],
)
def test_aws_errors_have_a_plain_message(
    account: Account, monkeypatch: pytest.MonkeyPatch, code: str, kind: type[Exception], message: str
) -> None:
    Refused(monkeypatch, code)
    with pytest.raises(kind, match=message):
        account.identity()


def test_missing_credentials_host_and_region_have_plain_messages(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(JobError, match=r"Could not connect.*Is the region right"):
        Account("eu-west-3").identity()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(InputError, match=r"Unable to locate credentials\. Give others by the environment"):
        Account("eu-west-3").identity()
    with pytest.raises(SettingsError, match="The AWS region is not set"):
        Account().identity()


def test_other_exceptions_are_not_translated() -> None:
    with pytest.raises(ZeroDivisionError), translated_errors("divide"):
        raise ZeroDivisionError
