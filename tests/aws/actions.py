"""What a request to AWS needs to be allowed."""

from __future__ import annotations

__all__ = ["action"]

# Where the action is called otherwise than the request: https://docs.aws.amazon.com/service-authorization/latest/reference/
OTHERWISE = {
    ("s3", "CreateMultipartUpload"): "s3:PutObject",
    ("s3", "DeleteObjects"): "s3:DeleteObject",
    ("s3", "HeadBucket"): "s3:ListBucket",
    ("s3", "HeadObject"): "s3:GetObject",
    ("s3", "ListObjectsV2"): "s3:ListBucket",
    ("s3", "ListMultipartUploads"): "s3:ListBucketMultipartUploads",
    ("s3", "PutBucketEncryption"): "s3:PutEncryptionConfiguration",
    ("s3", "PutBucketLifecycleConfiguration"): "s3:PutLifecycleConfiguration",
    ("s3", "PutPublicAccessBlock"): "s3:PutBucketPublicAccessBlock",
}
PREFIXES = {"emr": "elasticmapreduce"}


def action(service: str, operation: str) -> str:
    """Return the action of IAM that an operation of a service asks for."""
    return OTHERWISE.get((service, operation), f"{PREFIXES.get(service, service)}:{operation}")
