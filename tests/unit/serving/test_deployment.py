"""The systemd unit and the configuration of nginx in docs/serving."""

from __future__ import annotations

import http.client
import os
import re
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.unit.serving.running import WAIT_SECONDS, Running, run_server, wait_for

EXAMPLES = Path(__file__).parents[3] / "docs" / "serving"
TOKEN = "correct-horse-battery"


def program(name: str) -> str:
    found = shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin")
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def certificate(folder: Path, name: str) -> None:
    """Write a certificate and its key, as certbot does."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(subject, subject, key.public_key(), 1, now, now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    folder.mkdir(parents=True)
    (folder / "fullchain.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    encodings = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "privkey.pem").write_bytes(key.private_bytes(*encodings))


def test_the_unit_is_valid(tmp_path: Path) -> None:
    analyze = program("systemd-analyze")
    unit = (EXAMPLES / "fruits.service").read_text().replace("/opt/fruits/bin/fruits", "/bin/true")
    (tmp_path / "fruits.service").write_text(unit)
    done = subprocess.run(
        [analyze, "verify", "--man=no", str(tmp_path / "fruits.service")], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture(scope="module")
def proxied(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Running, int, Path]]:
    """Return a server with a token, the port of nginx in front of it, and its certificate."""
    nginx, site = program("nginx"), tmp_path_factory.mktemp("nginx")
    certificate(site / "live", "fruit.example.org")
    with (
        run_server(folder, token=TOKEN) as running,
        socket.create_server(("127.0.0.1", 0)) as plain,
        socket.create_server(("127.0.0.1", 0)) as tls,
    ):
        http_port, https_port = (each.getsockname()[1] for each in (plain, tls))
        config = re.sub(r"(?m)^ *listen \[::\].*\n", "", (EXAMPLES / "nginx.conf").read_text())
        for old, new in (
            ("/etc/letsencrypt/live/fruit.example.org/fullchain.pem", f'"{site}/live/fullchain.pem"'),
            ("/etc/letsencrypt/live/fruit.example.org/privkey.pem", f'"{site}/live/privkey.pem"'),
            ("listen 80;", f"listen 127.0.0.1:{http_port};"),
            ("listen 443 ssl;", f"listen 127.0.0.1:{https_port} ssl;"),
            ("server 127.0.0.1:8000;", f"server 127.0.0.1:{running.port};"),
        ):
            assert old in config
            config = config.replace(old, new)
        (site / "fruits.conf").write_text(config)
        folders = "".join(
            f'{kind}_temp_path "{site}/{kind}";' for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        (site / "nginx.conf").write_text(
            f'daemon off; pid "{site}/pid"; error_log "{site}/error.log"; events {{}} '
            f'http {{ access_log off; {folders} include "{site}/fruits.conf"; }}'
        )
        descriptors = [plain.fileno(), tls.fileno()]
        process = subprocess.Popen(
            [nginx, "-c", str(site / "nginx.conf"), "-e", str(site / "start.log")],
            env=os.environ | {"NGINX": "".join(f"{each};" for each in descriptors)},  # the sockets that it inherits
            pass_fds=descriptors,
        )
        try:

            def has_started() -> bool:
                assert process.poll() is None, (site / "start.log").read_text()
                return (site / "pid").exists()

            wait_for(has_started)
            yield running, https_port, site / "live" / "fullchain.pem"
        finally:
            process.terminate()
            process.wait(WAIT_SECONDS)


def ask(proxied: tuple[Running, int, Path], method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    _, port, trusted = proxied
    context = ssl.create_default_context(cafile=str(trusted))
    connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=WAIT_SECONDS, context=context)
    connection.sock = context.wrap_socket(
        socket.create_connection(("127.0.0.1", port), timeout=WAIT_SECONDS), server_hostname="fruit.example.org"
    )
    try:
        connection.request(method, path, body, {"Authorization": f"Bearer {TOKEN}", "Host": "fruit.example.org"})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def test_nginx_passes_requests_on(proxied: tuple[Running, int, Path], banana: bytes) -> None:
    status, body = ask(proxied, "POST", "/v1/recognise", banana)
    assert (status, b'"label":"Banana"' in body) == (200, True)
    assert ask(proxied, "GET", "/v2/health/ready") == (200, b'{"ready":true}')
    assert b"Which fruit is this?" in ask(proxied, "GET", "/")[1]


def test_nginx_refuses_large_bodies_and_the_metrics(proxied: tuple[Running, int, Path]) -> None:
    assert ask(proxied, "GET", "/metrics")[0] == 403
    assert ask(proxied, "POST", "/v1/recognise", bytes(21 * 2**20))[0] == 413
