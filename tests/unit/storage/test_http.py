"""Web servers: URLs are requested as they are given, names below them are encoded, and errors of files are rejects."""

from __future__ import annotations

import gzip
import io
import re
import ssl
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fruits.errors import DatasetError
from fruits.images.decode import ImageError
from fruits.images.sources.entries import ImageEntry
from fruits.images.sources.kinds import open_source
from fruits.images.sources.listing import Listing
from fruits.images.sources.options import SourceOptions
from fruits.images.sources.source import image_bytes
from fruits.storage import http
from fruits.storage.addresses import open_store
from fruits.storage.folder import Folder
from fruits.storage.prefetch import Range, UnreachableError
from tests.s3.test_tls import certificate
from tests.unit.storage import servers


class _Echo(servers._Pages):
    """Sends the files of a folder, and below ``/echo`` the requested path, a redirect to itself, or a status."""

    def do_GET(self) -> None:
        if status := re.search(r"/echo/(\d{3})$", self.path):
            self.answer(int(status[1]), "text/plain", b"", Location=self.path)
        elif self.path.startswith("/compressed") and "gzip" in self.headers.get("Accept-Encoding", ""):
            self.answer(200, "text/plain", gzip.compress(bytes(10_000)), **{"Content-Encoding": "gzip"})
        elif self.path.startswith("/compressed"):
            self.answer(200, "text/plain", bytes(10_000))
        elif self.path.startswith("/echo"):
            self.answer(200, "image/jpeg", self.path.encode())
        elif self.path == "/bad links/".replace(" ", "%20"):
            self.answer(200, "text/html", b'<a href="http://[">no URL</a> <a href="1.jpg">1</a>')
        else:
            super().do_GET()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    with servers._serving(_Echo, tmp_path / "www", ranges=True) as host:
        yield f"http://{host}"


def read(tmp_path: Path, url: str) -> bytes:
    (content,) = open_source(str(tmp_path / "m.csv"), SourceOptions(path_column="uri")).read([ImageEntry(url, -1)])
    return image_bytes(content)


@pytest.mark.parametrize(
    ("url", "requested"),
    [
        ("/echo?id=1&size=2", "/echo?id=1&size=2"),
        ("/echo/o/a%2F1.jpg?alt=media#top", "/echo/o/a%2F1.jpg?alt=media"),
        ("/echo/a,b@c~(1)%2C.jpg", "/echo/a,b@c~(1)%2C.jpg"),
        ("/echo/a::b.jpg", "/echo/a::b.jpg"),
        ("/echo/é 50%.jpg", "/echo/%C3%A9%2050%25.jpg"),
    ],
)
def test_url_of_an_image_is_requested_as_it_is_given(server: str, tmp_path: Path, url: str, requested: str) -> None:
    assert read(tmp_path, server + url) == requested.encode()


@pytest.mark.parametrize(
    ("status", "detail"),
    [(302, "more than 9 redirections"), (400, "400 Bad Request"), (404, "No such file"), (451, "451 Unavailable")],
)
def test_image_that_a_web_server_refuses_is_a_reject(server: str, tmp_path: Path, status: int, detail: str) -> None:
    with pytest.raises(ImageError, match=f"^unreadable: .*{detail}"):
        read(tmp_path, f"{server}/echo/{status}")


@pytest.mark.parametrize("status", [429, 503])
def test_request_that_may_succeed_later_is_repeated(server: str, tmp_path: Path, status: int) -> None:
    with pytest.raises(ConnectionError, match=str(status)):
        read(tmp_path, f"{server}/echo/{status}")


@pytest.mark.parametrize("address", ["my%20lists/a%25%20b.csv", "my%20lists/%7B.tar", "my%20lists/*.tar"])
def test_names_in_the_address_of_a_file_are_encoded(server: str, tmp_path: Path, address: str) -> None:
    folder = tmp_path / "www" / "my lists"
    folder.mkdir(parents=True)
    (folder / "1 %41.jpg").write_bytes(b"one")
    (folder / "a% b.csv").write_text("uri\n1 %41.jpg\n../my lists/./1 %41.jpg\n")
    with tarfile.open(folder / "{.tar", "w") as archive:
        member = tarfile.TarInfo("1.jpg")
        member.size = 3
        archive.addfile(member, io.BytesIO(b"one"))
    options = SourceOptions(path_column="uri") if address.endswith("csv") else None
    source = open_source(f"{server}/{address}", options)
    assert set(source.read(list(Listing(source)))) == {b"one"}
    assert list(Listing(open_source(source.address, options))) == list(Listing(source))


@pytest.mark.parametrize("address", ["http://[2001:db8::1]:8000/a", "https://host/a::b"])
def test_two_colons_in_a_url_are_no_chain(address: str) -> None:
    assert Folder.at(address).address == address
    assert (Folder.at(address) / "c d").address == f"{address}/c%20d"


def test_names_and_files_of_a_folder(server: str, tmp_path: Path) -> None:
    (tmp_path / "www" / "a b" / "c%d").mkdir(parents=True)
    (tmp_path / "www" / "a b" / "1?.jpg").write_bytes(b"one")
    folder = Folder.at(f"{server}/a%20b")
    assert folder.names() == ["1?.jpg", "c%d"]
    assert list(folder.files()) == ["1?.jpg"]
    assert folder.read("1?.jpg") == (Folder.at(server) / "a b").read("1?.jpg") == b"one"
    assert (folder / "c%d").names() == (folder / "none").names() == []
    assert (folder / "none").files() == {}


def test_sizes_and_ranges_are_those_of_files_that_a_server_could_compress(server: str) -> None:
    folder = Folder.at(server)
    assert folder.info("compressed").size == 10_000
    assert list(folder.fetch_ranges([Range("compressed", 9_990, 10)])) == [bytes(10)]


def test_folder_with_a_query_and_links_that_are_no_urls(server: str) -> None:
    assert [entry.path for entry in Listing(open_source(f"{server}/bad%20links"))] == ["1.jpg"]
    with pytest.raises(DatasetError, match=r"page=2: the URL of a folder has no query\."):
        list(Listing(open_source(f"{server}/folder?page=2")))


def test_certificate_of_an_unknown_authority_is_an_unreachable_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "RECONNECT_SECONDS", (0.01,))
    key = ec.generate_private_key(ec.SECP256R1())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (tmp_path / "own.pem").write_bytes(certificate("own", key, "own", key) + private)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "own.pem")
    with servers.http(tmp_path, tls=context) as url:
        store, path = open_store(f"{url}/own.pem")
        (error,) = store.fetch([(path, -1, "")], ahead=1)
    assert isinstance(error, UnreachableError)
    assert error.server == url.removeprefix("https://")
    assert "certificate verify failed" in str(error)
