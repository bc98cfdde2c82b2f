"""Settings of S3; tests/s3 uses them with a server."""

import pickle
import re

import pytest

from fruits.errors import SettingsError
from fruits.storage.folder import Folder
from fruits.storage.s3.settings import S3Settings


def test_settings_come_from_the_environment_and_fsspec(monkeypatch):
    monkeypatch.setattr("fruits.storage.s3.settings.conf", {})
    assert S3Settings.from_environment({}) == S3Settings()
    environ = {"AWS_ENDPOINT_URL": "http://all.example", "AWS_DEFAULT_REGION": "eu-west-3"}
    assert S3Settings.from_environment(environ) == S3Settings(endpoint="http://all.example", region="eu-west-3")
    environ |= {"AWS_ENDPOINT_URL_S3": "http://s3.example:9000"}
    keywords = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "arn:aws:kms:eu-west-3:1:key/2"}
    configured = {
        "anon": True,
        "requester_pays": True,
        "s3_additional_kwargs": keywords,
        "key": "k",
        "secret": "s3cret",
    }
    monkeypatch.setattr("fruits.storage.s3.settings.conf", {"s3": configured})
    settings = S3Settings.from_environment(environ)
    assert settings == S3Settings(
        endpoint="http://s3.example:9000",
        region="eu-west-3",
        anonymous=True,
        requester_pays=True,
        encryption="aws:kms",
        kms_key="arn:aws:kms:eu-west-3:1:key/2",
    )
    pickled = pickle.dumps(Folder("s3://bucket/out", settings) / "rows")
    assert pickle.loads(pickled) == Folder("s3://bucket/out/rows", settings)
    assert b"s3cret" not in pickled


def test_settings_of_another_process_are_applied(monkeypatch):
    monkeypatch.setattr("fruits.storage.s3.settings.conf", {"s3": {"key": "k"}})
    monkeypatch.setattr("os.environ", environ := {})
    settings = S3Settings(
        endpoint="http://s3.example:9000", region="eu-west-3", requester_pays=True, encryption="aws:kms", kms_key="k"
    )
    settings.apply()
    assert S3Settings.from_environment(environ) == settings
    S3Settings().apply()
    assert not S3Settings.from_environment({}).requester_pays


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"endpoint": "minio.example:9000"}, "`s3_endpoint` = minio.example:9000: not the URL of a server"),
        ({"endpoint": "https://key:s3cret@minio.example"}, "`s3_endpoint` = https://***@minio.example"),
        ({"encryption": "rot13"}, "ServerSideEncryption rot13: unknown. Allowed: AES256, aws:kms"),
        ({"encryption": "AES256", "kms_key": "k"}, "a KMS key needs ServerSideEncryption aws:kms"),
    ],
)
def test_invalid_settings_are_rejected_without_showing_secrets(given, text):
    with pytest.raises(SettingsError, match=re.escape(text)) as caught:
        S3Settings(**given)
    assert "s3cret" not in str(caught.value)
