"""The user's policy against what is really called: everything that ``fruits cluster`` asks of AWS, over HTTP."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from backends.aws import cli, emr_run
from backends.aws.account import Account
from backends.aws.roles import user_policy
from backends.aws.staged import Staged
from tests.aws.actions import action
from tests.aws.conftest import REGION, SECRET


def test_the_users_policy_allows_every_action_that_is_called_and_no_other(
    account: Account,
    called: set[tuple[str, str]],
    small_wheelhouse: None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AWS_REGION", REGION)
    monkeypatch.setenv("FRUITS_BUCKET", "s3://my-fruits")
    for words in (
        ["init", "s3://my-fruits", "--region", REGION, "--key-pair", "mine", "--yes"],
        ["stage"],
        ["up", "emr-notebook", "--quiet"],
        ["status"],
        ["up", "emr-notebook", "--dry-run"],
        ["render", "emr", "--out", "rendered"],
    ):
        cli.call(words)
    with pytest.raises(Exception, match="no leading node yet"):
        cli.call(["ssh", "emr-notebook"])
    staged = Staged.of("my-fruits", "3.11")
    job = emr_run.start_step(
        account, cli._emr("emr", None), ["run"], entry="emr-notebook", bucket="my-fruits", staged=staged
    )
    emr_run.start_step(account, cli._emr("emr", None), ["run"], entry="emr", bucket="my-fruits", staged=staged)
    with pytest.raises(StopIteration):
        emr_run.follow(account, job, tell=print, log=print, wait=lambda seconds: next(iter(())))
    account.client("ec2").run_instances(
        ImageId="ami-12c6146b",
        MinCount=1,
        MaxCount=1,
        TagSpecifications=[{"ResourceType": "instance", "Tags": [{"Key": "fruits", "Value": "other"}]}],
    )
    called.discard(("ec2", "RunInstances"))  # of the test, not of the commands
    cli.call(["down", "--all", "--yes"])

    policy = user_policy("my-fruits", "111122223333", REGION)
    allowed = {name for statement in policy["Statement"] for name in statement["Action"]}
    used = {action(*each) for each in called}
    assert used - allowed == set()
    # What a request implies that carries tags or a role, what large files take, and what is not done without TLS; and
    # what Dask on EC2 does, which its own tests hold to the policy.
    implied = {
        "ec2:AuthorizeSecurityGroupIngress",
        "ec2:DeleteSecurityGroup",
        "ec2:DescribeImages",
        "ec2:DescribeInstanceTypes",
        "ec2:RunInstances",
        "elasticmapreduce:AddTags",
        "iam:PassRole",
        "iam:TagInstanceProfile",
        "iam:TagRole",
        "s3:AbortMultipartUpload",
        "s3:GetBucketPolicy",
        "s3:PutBucketPolicy",
        "s3:ListBucketMultipartUploads",
    }
    assert allowed - used - implied == set()
    written = "".join(path.read_text() for path in (tmp_path / "rendered").iterdir()) + "".join(capfd.readouterr())
    assert SECRET not in written
    assert json.loads((tmp_path / "rendered" / "policy_user.json").read_text())["Statement"]
