"""Errors of AWS in plain English: the cause, and the change that removes it.

One table of causes serves two kinds of caller. :func:`storage_error` serves the file system of S3, whose errors are
``OSError``. :func:`service_error` serves calls through boto3, whose errors are ``FruitsError``.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from enum import Enum, auto

from fruits.errors import InputError, JobError, SettingsError
from fruits.storage.s3.settings import ENDPOINT_VARIABLE

OTHER_CREDENTIALS = (
    "Give others by the environment (AWS_PROFILE, AWS_ACCESS_KEY_ID, …), ~/.aws, or the role of the machine"
)


class AddressError(ConnectionError):
    """The bucket does not exist, or S3 has no objects of such a name: an error of the address, which stays."""


class Cause(Enum):
    """Causes of failed requests that differ in their remedy."""

    NO_CREDENTIALS = auto()
    REFUSED_CREDENTIALS = auto()
    FORBIDDEN = auto()
    NO_BUCKET = auto()
    OTHER_REGION = auto()
    MISSING = auto()
    EXISTS = auto()
    NO_RESPONSE = auto()
    INVALID_PARAMETERS = auto()
    UNKNOWN = auto()


FORBIDDEN = {
    *("403", "Forbidden", "AccessDenied", "AccessDeniedException", "AllAccessDisabled"),
    *("AccountProblem", "InvalidObjectState", "UnauthorizedOperation"),
}
REFUSED = {
    *("AuthFailure", "InvalidAccessKeyId", "InvalidSecurity", "NotSignedUp", "SignatureDoesNotMatch"),
    *("ExpiredToken", "ExpiredTokenException", "RequestExpired", "RequestTimeTooSkewed", "TokenRefreshRequired"),
    *("InvalidClientTokenId", "InvalidToken", "UnrecognizedClientException"),
}
REDIRECTED = {
    *("301", "307", "PermanentRedirect", "Redirect", "TemporaryRedirect"),
    *("AuthorizationHeaderMalformed", "IllegalLocationConstraintException"),
}
CAUSES = {
    **dict.fromkeys(FORBIDDEN, Cause.FORBIDDEN),
    **dict.fromkeys(REFUSED, Cause.REFUSED_CREDENTIALS),
    **dict.fromkeys(REDIRECTED, Cause.OTHER_REGION),
    **dict.fromkeys(("404", "NoSuchKey", "NoSuchUpload", "NoSuchVersion"), Cause.MISSING),
    # https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html
    **dict.fromkeys(("412", "ConditionalRequestConflict", "PreconditionFailed"), Cause.EXISTS),
    "InvalidInstanceType": Cause.INVALID_PARAMETERS,
    "NoSuchBucket": Cause.NO_BUCKET,
}


@dataclass(frozen=True, slots=True)
class AwsFailure:
    """A failed request.

    Attributes
    ----------
    cause : Cause
        The cause, by code or type of exception.
    code : str
        The error code in the response; empty without a response.
    message : str
        The message in the response, or of the exception, without its full stop.
    region : str or None
        The region of the bucket, where the response names it.
    """

    cause: Cause
    code: str
    message: str
    region: str | None

    @classmethod
    def from_exception(cls, error: Exception) -> AwsFailure:
        """Return the failure behind an exception of botocore, or behind an ``OSError`` that s3fs made of one."""
        response = getattr(error, "response", None) or getattr(error.__cause__, "response", None) or {}
        details = response.get("Error", {})
        headers = response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
        code = str(details.get("Code", ""))
        message = str(details.get("Message", "")).strip() or ("" if code else str(error))
        region = headers.get("x-amz-bucket-region") or details.get("Region")
        return cls(_cause(error, code), code, message.rstrip("."), region)

    def __str__(self) -> str:
        return ": ".join(filter(None, (self.code, self.message)))


def storage_error(error: Exception, *, operation: str, bucket: str, key: str, endpoint: str | None) -> OSError:
    """Return the error of a request to S3; its text is one or two sentences without the last full stop.

    Parameters
    ----------
    error : Exception
        From botocore, or from s3fs, which sets botocore's as its cause.
    operation : str
        The method of the client, such as ``get_object``.
    bucket, key : str
        The object; the key can be empty.
    endpoint : str, optional
        The endpoint, unless it is that of AWS.

    Returns
    -------
    OSError
        ``FileNotFoundError``, ``FileExistsError`` and ``PermissionError`` concern the one object;
        ``ConnectionError`` concerns S3 as a whole: credentials, bucket, region, network.
    """
    failure = AwsFailure.from_exception(error)
    place = f"s3://{bucket}/{key}".rstrip("/")
    at = f" at {endpoint}" if endpoint else ""
    match failure.cause:
        case Cause.NO_CREDENTIALS:
            return ConnectionError(
                f"no credentials for {place}: {failure}. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
                "AWS_PROFILE, or use a machine with a role; for a public bucket, set FSSPEC_S3_ANON=true"
            )
        case Cause.REFUSED_CREDENTIALS:
            return ConnectionError(
                f"the credentials for {place}{at} were refused: {failure}. Set AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, to those of an account with access"
            )
        case Cause.NO_BUCKET:
            return AddressError(f"the bucket {bucket} does not exist{at}. Create it, or correct the name")
        case Cause.FORBIDDEN:
            return PermissionError(
                f"{operation} is forbidden for {place}{at}: {failure.message}. Allow it in the policy of the user, "
                "role or bucket, or use other credentials"
            )
        case Cause.OTHER_REGION:
            region = f"the region {failure.region}" if failure.region else "another region"
            setting = f"AWS_DEFAULT_REGION{f'={failure.region}' if failure.region else ''}"
            return ConnectionError(
                f"the bucket {bucket} is in {region}; the request{at} failed: {failure}. Set {setting}, and the "
                "endpoint of that region or none"
            )
        case Cause.NO_RESPONSE:
            return ConnectionError(
                f"no response from S3 for {place}: {failure}. Check the network and the endpoint (`s3_endpoint` or "
                f"{ENDPOINT_VARIABLE})"
            )
        case Cause.INVALID_PARAMETERS:
            return AddressError(f"{operation} of {place}{at} is not possible: {failure}")
        case Cause.MISSING if isinstance(error, FileNotFoundError):
            return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), place)
        case Cause.EXISTS:
            return FileExistsError(f"{place} exists already{at}")
        case _:
            return ConnectionError(f"{operation} of {place}{at} failed: {failure}")


def service_error(action: str, error: Exception) -> Exception:
    """Return the error of a call through boto3; exceptions of other libraries are returned unchanged.

    Parameters
    ----------
    action : str
        The action that failed, as in ``start the cluster``.
    error : Exception
        As caught.

    Returns
    -------
    Exception
        ``InputError`` for credentials and permissions, ``SettingsError`` for invalid parameters, else ``JobError``.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    if not isinstance(error, BotoCoreError | ClientError):
        return error
    failure = AwsFailure.from_exception(error)
    operation = getattr(error, "operation_name", "")
    match failure.cause:
        case Cause.NO_CREDENTIALS:
            return InputError(f"Could not {action}: {failure}. {OTHER_CREDENTIALS}.")
        case Cause.REFUSED_CREDENTIALS:
            region = "" if "Expired" in failure.code else ", or the region is not enabled in the account"
            return InputError(
                f"Could not {action}: AWS does not accept the credentials ({failure.code}){region}. "
                f"{OTHER_CREDENTIALS}."
            )
        case Cause.FORBIDDEN:
            return InputError(
                f"Could not {action}: {operation} is not permitted. {f'{failure.message}. ' * bool(failure.message)}"
                "An administrator attaches the policies of jobs: fruits cluster init s3://BUCKET --user NAME. "
                "`init` and `remove` themselves need an administrator (docs/aws.md)."
            )
        case Cause.NO_BUCKET:
            return SettingsError(
                f"Could not {action}: the bucket does not exist. Correct its name, or create it: fruits cluster init."
            )
        case Cause.NO_RESPONSE:
            return JobError(f"Could not {action}: {failure}. Is the region right, and the network there?")
        case Cause.INVALID_PARAMETERS:
            return SettingsError(f"Could not {action}: {failure}.")
        case _:
            details = failure.message or failure.code
            return JobError(f"Could not {action}: {f'{operation}: ' * bool(operation)}{details}.")


def _cause(error: Exception, code: str) -> Cause:
    from botocore.exceptions import (
        ConnectionError,
        CredentialRetrievalError,
        InvalidRegionError,
        NoCredentialsError,
        ParamValidationError,
        PartialCredentialsError,
        ProfileNotFound,
        ReadTimeoutError,
        SSOError,
        TokenRetrievalError,
    )

    missing = NoCredentialsError | PartialCredentialsError | ProfileNotFound
    if isinstance(error, missing | CredentialRetrievalError | SSOError | TokenRetrievalError):
        return Cause.NO_CREDENTIALS
    if isinstance(error, ConnectionError | ReadTimeoutError):
        return Cause.NO_RESPONSE
    if isinstance(error, ParamValidationError | InvalidRegionError):
        return Cause.INVALID_PARAMETERS
    return CAUSES.get(code, Cause.UNKNOWN)
