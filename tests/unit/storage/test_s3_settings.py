"""The settings of S3; tests/s3 tries them on a server."""

import pickle

import pytest

from fruits.errors import SettingsError
from fruits.storage.folder import Folder
from fruits.storage.s3.settings import S3Settings


def test_settings_come_from_the_environment_and_the_configuration_of_fsspec(monkeypatch):
    monkeypatch.setattr("fruits.storage.s3.settings.conf", {})
    assert S3Settings.of_this_process({}) == S3Settings()
    environ = {"AWS_ENDPOINT_URL": "http://all.example", "AWS_DEFAULT_REGION": "eu-west-3"}
    assert S3Settings.of_this_process(environ) == S3Settings(endpoint="http://all.example", region="eu-west-3")
    environ |= {"AWS_ENDPOINT_URL_S3": "http://s3.example:9000"}
    written = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "arn:aws:kms:eu-west-3:1:key/2"}
    configured = {"anon": True, "requester_pays": True, "s3_additional_kwargs": written, "key": "k", "secret": "s3cret"}
    monkeypatch.setattr("fruits.storage.s3.settings.conf", {"s3": configured})
    settings = S3Settings.of_this_process(environ)
    assert settings == S3Settings(
        endpoint="http://s3.example:9000",
        region="eu-west-3",
        anonymous=True,
        requester_pays=True,
        encryption="aws:kms",
        kms_key="arn:aws:kms:eu-west-3:1:key/2",
    )
    travelled = pickle.dumps(Folder("s3://bucket/out", settings) / "rows")
    assert pickle.loads(travelled) == Folder("s3://bucket/out/rows", settings)
    assert b"s3cret" not in travelled


def test_settings_of_another_process_hold_here(monkeypatch):
    monkeypatch.setattr("fruits.storage.s3.settings.conf", {"s3": {"key": "k"}})
    monkeypatch.setattr("os.environ", environ := {})
    settings = S3Settings(
        endpoint="http://s3.example:9000", region="eu-west-3", requester_pays=True, encryption="aws:kms", kms_key="k"
    )
    settings.apply()
    assert S3Settings.of_this_process(environ) == settings
    S3Settings().apply()
    assert not S3Settings.of_this_process({}).requester_pays


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"endpoint": "minio.example:9000"}, "--s3-endpoint minio.example:9000: not the address of a server"),
        ({"endpoint": "https://key:s3cret@minio.example"}, "--s3-endpoint https://…@minio.example"),
        ({"encryption": "rot13"}, "ServerSideEncryption rot13: not known. Allowed: AES256, aws:kms"),
        ({"encryption": "AES256", "kms_key": "k"}, "a key of KMS needs ServerSideEncryption aws:kms"),
    ],
)
def test_what_is_not_allowed_is_refused_and_no_secret_is_shown(given, words):
    with pytest.raises(SettingsError, match=words.replace(".", r"\.")) as caught:
        S3Settings(**given)
    assert "s3cret" not in str(caught.value)
