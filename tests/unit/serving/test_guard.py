"""The token, the host and the headers of every answer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fruits.serving.web.app import PAGE
from fruits.serving.web.guard import is_loopback_name
from tests.unit.serving.running import Running, run_server

TOKEN = "correct-horse-battery"


@pytest.fixture(scope="module")
def guarded(folder: Path) -> Iterator[Running]:
    with run_server(folder, token=TOKEN) as running:
        yield running


@pytest.mark.parametrize(
    "header",
    [None, "", TOKEN, f"Basic {TOKEN}", "Bearer", "Bearer ", "Bearer wrong", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}",
     "Bearer caf\u00e9"],
)  # fmt: skip
def test_a_missing_or_wrong_token_is_401(guarded: Running, banana: bytes, header: str | None) -> None:
    headers = {} if header is None else {"authorization": header}
    answer = guarded.recognise(banana, **headers)
    assert (answer.status, answer.headers["www-authenticate"]) == (401, 'Bearer realm="fruits"')
    assert "Authorization: Bearer TOKEN" in answer.json()["error"]["message"]


@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
def test_the_token_gives_access_from_any_host(guarded: Running, banana: bytes, scheme: str) -> None:
    answer = guarded.recognise(banana, authorization=f"{scheme} {TOKEN}", host="fruit.example.org")
    assert answer.status == 200


def test_everything_but_page_and_health_needs_the_token(guarded: Running) -> None:
    for path in ("/v1/model", "/metrics", "/v2", "/v2/models/fruits", "/v2/models/fruits/ready", "/no-such-path"):
        assert guarded.request("GET", path).status == 401
    for path in (*PAGE, "/v2/health/live", "/v2/health/ready"):
        assert guarded.request("GET", path).status == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "localhost.evil:80"])
def test_without_a_token_other_hosts_are_refused(running: Running, banana: bytes, host: str) -> None:
    answer = running.recognise(banana, host=host)
    assert answer.status == 421
    assert "--token-file" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("localhost", True), ("LOCALHOST:8000", True), ("127.0.0.1:1", True), ("[::1]:8000", True), ("[::1]", True),
     ("::1", False), ("localhost:x", False), ("10.0.0.1", False)],
)  # fmt: skip
def test_names_of_this_machine(host: str, loopback: bool) -> None:
    assert is_loopback_name(host) is loopback


def test_every_answer_has_the_security_headers(running: Running, guarded: Running) -> None:
    for answer in (
        running.request("GET", "/"),
        running.request("GET", "/no-such-path"),
        running.recognise(b"text"),
        guarded.request("GET", "/metrics"),
    ):
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "server" not in answer.headers
