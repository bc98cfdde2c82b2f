"""A server with a certificate of a private authority, which is trusted only if configured."""

import datetime
import ipaddress

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fruits.storage.folder import Folder
from tests.s3.server import close_clients, served

HERE = x509.IPAddress(ipaddress.IPv4Address("127.0.0.1"))


def certificate(name, key, issuer, issuer_key):
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=2))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=name == issuer, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([HERE]), critical=False)
    )
    return builder.sign(issuer_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


@pytest.fixture
def private(s3, tmp_path, monkeypatch):
    """Start a server with such a certificate, set the environment for it, and return the authority's certificate."""
    authority, own = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    (tmp_path / "authority.pem").write_bytes(certificate("authority", authority, "authority", authority))
    (tmp_path / "server.pem").write_bytes(certificate("server", own, "authority", authority))
    key = own.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (tmp_path / "key.pem").write_bytes(key)
    options = ("--cert", str(tmp_path / "server.pem"), "--key", str(tmp_path / "key.pem"))
    with served(s3.root, *options) as server:
        for name, value in server.environ(f"https://{server.address}").items():
            monkeypatch.setenv(name, value)
        yield tmp_path / "authority.pem"
        close_clients()


def read(s3, count=20):
    (s3.root / "private").mkdir()
    for index in range(count):
        (s3.root / "private" / f"{index}").write_bytes(b"x" * 1000)
    return list(Folder.at("s3://private").fetch(((f"{index}", 1000, "") for index in range(count)), ahead=1))


def test_configured_private_authority_is_trusted(s3, private, monkeypatch, botocore_keys):
    monkeypatch.setenv("AWS_CA_BUNDLE", str(private))
    assert read(s3) == [b"x" * 1000] * 20
    assert botocore_keys == ["0"]


def test_certificate_verification_can_be_disabled(s3, private, configure, botocore_keys):
    configure(client_kwargs={"verify": False})
    assert read(s3) == [b"x" * 1000] * 20
    assert botocore_keys == ["0"]


def test_unknown_authority_is_not_trusted(s3, private):
    found = read(s3, count=2)
    assert all(isinstance(error, ConnectionError) for error in found)
    assert "CERTIFICATE_VERIFY_FAILED" in str(found[0])
