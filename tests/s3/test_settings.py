"""Settings and credentials of every kind, with a real S3 server."""

import pytest

from fruits.clusters.resolve import resolve
from fruits.errors import SettingsError
from fruits.images.sources.kinds import open_source
from fruits.images.sources.listing import Listing
from fruits.storage.folder import Folder
from tests.s3.server import close_clients, served

JPEG = b"\xff\xd8\xff\xe0 the rest does not matter to a listing"


def test_credentials_of_a_profile_are_used(bucket, s3, tmp_path, monkeypatch, botocore_keys):
    (tmp_path / "credentials").write_text(
        f"[fruits]\naws_access_key_id = {s3.key}\naws_secret_access_key = {s3.secret}\n"
    )
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_PROFILE", "fruits")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    folder = Folder.at(bucket)
    folder.write("a", b"1")
    folder.write("b", b"22")
    assert list(folder.fetch([("a", 1, "")])) + list(folder.fetch([("b", 2, "")])) == [b"1", b"22"]
    assert botocore_keys == ["a", "b", "a"]  # written, written, read


def test_public_bucket_is_read_without_credentials(s3, tmp_path, monkeypatch, configure):
    (tmp_path / "public" / "images" / "label").mkdir(parents=True)
    for index in range(3):
        (tmp_path / "public" / "images" / "label" / f"{index}.jpg").write_bytes(JPEG)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    configure(anon=True)
    with served(tmp_path / "public", public=True) as public:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", public.endpoint)
        entries = list(Listing(open_source("s3://images")))
        assert list(Folder.at("s3://images").fetch([entry[:3] for entry in entries], ahead=1)) == [JPEG] * 3
        close_clients()


def test_requests_name_the_payer_and_writes_the_encryption(bucket, proxy, configure):
    written = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "alias/fruits"}
    configure(requester_pays=True, s3_additional_kwargs=written)
    between = proxy()
    folder = Folder.at(bucket)
    folder.check()
    folder.write("small", b"1")
    folder.write("large", bytes(33 * 2**20))
    assert list(folder.fetch([("small", 1, "")] * 3, ahead=1)) == [b"1"] * 3
    assert folder.names() == ["large", "small"]
    assert all("x-amz-request-payer: requester" in head for head in between.heads)
    begun = [
        head for head in between.heads if (head.startswith("put") and "partnumber=" not in head) or "?uploads" in head
    ]
    assert len(begun) == 3
    assert all("x-amz-server-side-encryption: aws:kms\r\n" in head for head in begun)
    assert all("x-amz-server-side-encryption-aws-kms-key-id: alias/fruits\r\n" in head for head in begun)


def test_settings_of_the_driver_apply_in_a_process_without_them(bucket, s3, monkeypatch):
    folder = Folder.at(bucket)
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name)
    folder.write("a", b"1")
    assert (folder / "a").is_file()
    assert folder.read("a") == b"1"


def test_cluster_file_is_read_from_a_bucket(bucket):
    Folder.at(f"{bucket}/team").write("cluster.yaml", b"clusters: {ours: {backend: dask, address: 'tcp://a:8786'}}")
    assert resolve(cluster="ours", file=f"{bucket}/team/cluster.yaml", environ={}).address == "tcp://a:8786"
    environ = {"FRUITS_CLUSTER_FILE": f"{bucket}/team/cluster.yaml"}
    assert resolve(cluster="ours", environ=environ).address == "tcp://a:8786"
    for file, text in (
        (f"{bucket}/team/missing.yaml", r"--cluster-file s3://.*/missing\.yaml cannot be read: No such file"),
        ("s3://nowhere/cluster.yaml", "the bucket nowhere does not exist"),
        ("nowhere://cluster.yaml", "Protocol not known"),
    ):
        with pytest.raises(SettingsError, match=text):
            resolve(file=file, environ={})
