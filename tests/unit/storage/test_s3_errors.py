"""Errors of AWS in plain English; tests/s3 and tests/aws provoke them on servers."""

import pytest
from botocore.exceptions import ClientError, NoCredentialsError, SSOTokenLoadError

from fruits.errors import InputError, JobError, SettingsError
from fruits.storage.s3.errors import AddressError, service_error, storage_error


def refused(code, message="No."):
    return ClientError({"Error": {"Code": code, "Message": message}, "ResponseMetadata": {}}, "GetObject")


def wrapped(code, message="No."):
    """Return an error as s3fs raises it."""
    error = FileNotFoundError(message) if code in ("404", "NoSuchKey") else OSError(message)
    error.__cause__ = refused(code, message)
    return error


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (wrapped("ExpiredToken"), ConnectionError, "credentials for s3://bucket/key at http://a were refused: Exp"),
        (wrapped("AccessDenied"), PermissionError, "get_object is forbidden for s3://bucket/key at http://a: No. Al"),
        (wrapped("NoSuchBucket"), AddressError, "the bucket bucket does not exist at http://a. Create it"),
        (
            wrapped("301"),
            ConnectionError,
            "the bucket bucket is in another region; the request at http://a failed: 301",
        ),
        (wrapped("SlowDown", ""), ConnectionError, "get_object of s3://bucket/key at http://a failed: SlowDown"),
        (wrapped("NoSuchKey"), FileNotFoundError, "[Errno 2] No such file or directory: 's3://bucket/key'"),
        (
            NoCredentialsError(),
            ConnectionError,
            "no credentials for s3://bucket/key: Unable to locate credentials. Set",
        ),
    ],
)
def test_failed_request_to_s3_is_an_os_error_with_a_remedy(error, kind, text):
    translated = storage_error(error, operation="get_object", bucket="bucket", key="key", endpoint="http://a")
    assert type(translated) is kind
    assert text in str(translated)


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (
            refused("ExpiredToken"),
            InputError,
            "Could not start: AWS does not accept the credentials (ExpiredToken). Give",
        ),
        (
            refused("InvalidClientTokenId"),
            InputError,
            "the credentials (InvalidClientTokenId), or the region is not enabled in the account. Give others",
        ),
        (
            SSOTokenLoadError(error_msg="Expired."),
            InputError,
            "Could not start: Error loading SSO Token: Expired. Give",
        ),
        (refused("AccessDenied"), InputError, "Could not start: GetObject is not permitted. No. An administrator"),
        (refused("AccessDenied", ""), InputError, "Could not start: GetObject is not permitted. An administrator"),
        (refused("NoSuchBucket"), SettingsError, "Could not start: the bucket does not exist. Correct its name, or"),
        (refused("InvalidInstanceType"), SettingsError, "Could not start: InvalidInstanceType: No."),
        (refused("Throttling"), JobError, "Could not start: GetObject: No."),
        (refused("Throttling", ""), JobError, "Could not start: GetObject: Throttling."),
        (NoCredentialsError(), InputError, "Could not start: Unable to locate credentials. Give others"),
    ],
)
def test_failed_call_through_boto3_is_an_error_of_this_project_with_a_remedy(error, kind, text):
    translated = service_error("start", error)
    assert type(translated) is kind
    assert text in str(translated)


def test_exception_of_another_library_is_returned_unchanged():
    error = ZeroDivisionError()
    assert service_error("divide", error) is error
