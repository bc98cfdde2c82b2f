"""Each action of the policies is used, and each request is allowed: the source is read, so no request is overlooked."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from fnmatch import fnmatchcase
from importlib.resources import files
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore import xform_name

from tests.aws.conftest import REGION
from tests.aws.iam import action, resources, statements

SOURCE = Path(str(files("backends.aws")))
SERVICES = ("cloudformation", "ec2", "emr", "emr-serverless", "iam", "s3", "service-quotas", "sts")
SETUP = ("stack.py", "prerequisites.py")  # of init and remove
MANAGED_TRANSFERS = {"upload_file": "put_object", "download_file": "get_object"}
USER_EXTRA = {
    # Made by services for a request of the user: with roles, tags or policies for a new cluster.
    *("ec2:CreateTags", "elasticmapreduce:AddTags", "elasticmapreduce:PutAutoTerminationPolicy"),
    *("elasticmapreduce:PutManagedScalingPolicy", "iam:PassRole"),
    # Made by the AWS CLI: `fruits cluster ssh`, and the command of a message about an instance.
    *("ec2:GetConsoleOutput", "ssm:ResumeSession", "ssm:StartSession", "ssm:TerminateSession"),
    # Made by the file system of S3, for the checks of a job and for Dask.
    *("s3:AbortMultipartUpload", "s3:ListBucketMultipartUploads"),
}
SETUP_EXTRA = {
    "cloudformation:CancelUpdateStack",  # the command of the message after Ctrl-C
    "iam:PassRole",  # made by IAM for the role of the instance profile
}


@pytest.fixture(scope="module")
def modules() -> dict[Path, set[str]]:
    """Return the actions that each module requests."""
    session = botocore.session.get_session()
    operations = {service: session.get_service_model(service).operation_names for service in SERVICES}
    return {path: set(requested(path, operations)) for path in sorted(SOURCE.rglob("*.py"))}


def requested(path: Path, operations: dict[str, list[str]]) -> Iterator[str]:
    """Yield the action of each method of a client, or of a paginator, that a module names."""
    nodes = list(ast.walk(ast.parse(path.read_text("utf-8"))))
    texts = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    names = texts | {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    names |= {MANAGED_TRANSFERS[name] for name in names & MANAGED_TRANSFERS.keys()}
    for service in operations.keys() & texts:
        for operation in operations[service]:
            if xform_name(operation) in names:
                yield action(service, operation)


def actions(listed: list[dict[str, Any]]) -> set[str]:
    """Return the actions that statements allow; they can be patterns."""
    allowed = [each["Action"] for each in listed if each["Effect"] == "Allow"]
    return {name for each in allowed for name in ([each] if isinstance(each, str) else each)}


USER = actions(statements("UserPolicy") + statements("DaskUserPolicy"))
ADMINISTRATOR = actions(json.loads((SOURCE / "account" / "setup_policy.json").read_text("utf-8"))["Statement"])


def test_every_request_is_allowed(modules: dict[Path, set[str]]) -> None:
    missing = {str(path): made - USER for path, made in modules.items() if path.name not in SETUP}
    assert {name: made for name, made in missing.items() if made} == {}
    by_setup = {name for path, made in modules.items() if path.name in SETUP for name in made}
    assert {name for name in by_setup if not any(fnmatchcase(name, each) for each in ADMINISTRATOR)} == set()
    assert len(by_setup) > 10


def test_the_user_has_no_action_that_nothing_uses(modules: dict[Path, set[str]]) -> None:
    used = {name for made in modules.values() for name in made}
    assert used >= {"emr-serverless:StartJobRun", "ec2:RunInstances", "s3:PutObject"}
    assert USER - used - USER_EXTRA == set()
    assert used & USER_EXTRA <= {"ec2:CreateTags"}  # by init, on subnets


def test_the_administrator_has_no_action_that_neither_init_nor_cloudformation_uses(
    modules: dict[Path, set[str]],
) -> None:
    from cfnlint.schema.manager import PROVIDER_SCHEMA_MANAGER

    used = {name for made in modules.values() for name in made} | SETUP_EXTRA
    for kind in {each["Type"] for each in resources().values()}:
        handlers = PROVIDER_SCHEMA_MANAGER.get_resource_schema(REGION, kind).schema["handlers"]
        used |= {name for handler in handlers.values() for name in handler.get("permissions", ())}
    assert {each for each in ADMINISTRATOR if not any(fnmatchcase(name, each) for name in used)} == set()
