"""The process that serves: its socket, start, signals and log."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from fruits.errors import SettingsError
from fruits.executor import one_thread
from fruits.images.isolation import IsolatedDecoder
from fruits.machine.cpus import available_cpus
from fruits.serving.current import CurrentRecogniser
from fruits.serving.limits import Limits
from fruits.text import counted

if TYPE_CHECKING:
    from fruits.serving.connections import HttpServer
    from fruits.serving.web.service import Service

MOST_WORKERS = 2_048  # as of a cluster
MIN_TOKEN = 16  # characters


def read_token(path: str) -> str:
    """Return the token of a file: its only line.

    Raises
    ------
    SettingsError
        The file cannot be read, or its content is not one line of at least 16 printable ASCII characters.
    """
    try:
        token = Path(path).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise SettingsError(
            f"`token_file` = {path}: cannot be read: {reason}. Create one with: openssl rand -hex 32 > {path}"
        ) from error
    if len(token) < MIN_TOKEN or not (token.isascii() and token.isprintable()) or " " in token:
        raise SettingsError(
            f"`token_file` = {path}: not a token. "
            f"Allowed: one line of at least {MIN_TOKEN} printable ASCII characters without spaces."
        )
    return token


def bind(host: str, port: int, *, has_token: bool) -> socket.socket:
    """Return a socket that is bound and does not listen yet.

    Raises
    ------
    SettingsError
        The host is unknown, or not loopback without a token; the port is in use, not allowed or out of range.
    """
    if not 0 <= port <= 65535:
        raise SettingsError(f"`port` = {port}: allowed are 0 (any free port) to 65535.")
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise SettingsError(f"`host` = {host}: unknown. Give a name or an address of this machine.") from error
    if not has_token and not ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback:
        raise SettingsError(
            f"`host` = {host}: anyone who can reach it could use the server. "
            "Add a `token_file`, or use 127.0.0.1 behind a proxy that checks its users."
        )
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise SettingsError(
            f"`port` = {port} of {host}: {error.strerror}. Stop the other server, or choose another `port`."
        ) from error
    return bound


def serve(
    recogniser: str,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    token_file: str | None = None,
    workers: int | None = None,
    limits: Limits | None = None,
) -> int:
    """Serve until SIGTERM or Ctrl-C, then answer the requests in progress.

    Parameters
    ----------
    recogniser : str
        Folder of the recogniser. A new version in it is loaded while the server runs.
    host, port : str, int
        Where to listen; 0 is any free port.
    token_file : str, optional
        File of the token that requests must have. Required on any other host than loopback.
    workers : int, optional
        Number of images that are processed at once. Default: one for each CPU.
    limits : Limits, optional
        Limits of requests.

    Returns
    -------
    int
        Number of requests that were answered.

    Raises
    ------
    SettingsError
        An option is invalid, or the port is in use.
    ModelError
        The folder contains no valid recogniser.
    """
    limits = limits or Limits()
    token = None if token_file is None else read_token(token_file)
    with bind(host, port, has_token=token is not None) as bound, one_thread():
        server, service = prepare(recogniser, token=token, workers=workers, limits=limits)
        name = f"[{host}]" if ":" in host else host
        value = service.recogniser
        return server.run_until_stopped(
            bound,
            f"Serving on http://{name}:{bound.getsockname()[1]}: recogniser {value.version}, "
            f"{counted(len(value.labels), 'label')}, {counted(service.workers.count, 'worker')}",
        )


def prepare(recogniser: str, *, token: str | None, workers: int | None, limits: Limits) -> tuple[HttpServer, Service]:
    """Return a server whose workers are loaded; the parameters are those of :func:`serve`."""
    if workers is not None and not 1 <= workers <= MOST_WORKERS:
        raise SettingsError(f"`workers` = {workers}: not allowed. Allowed: 1 to {MOST_WORKERS:,}.")
    count = workers or available_cpus()
    with contextlib.ExitStack() as on_failure, ThreadPoolExecutor(1) as background:
        decoders = [
            on_failure.enter_context(
                IsolatedDecoder(limits.cpu_seconds, wall_seconds=limits.decode_seconds, memory=limits.decode_bytes)
            )
            for _ in range(count)
        ]
        for decoder in decoders:
            decoder.start()
        current = CurrentRecogniser(recogniser)
        loading = background.submit(lambda: current.value.compile_network().load_shared(count))
        # These imports take 0.3 s, while the network is compiled.
        from fruits.serving.connections import HttpServer
        from fruits.serving.metrics import Metrics
        from fruits.serving.web.app import create_app
        from fruits.serving.web.service import Service
        from fruits.serving.web.uploads import Uploads
        from fruits.serving.workers import Workers

        metrics = Metrics()
        pool = Workers(decoders, loading.result(), limits, metrics)
        service = Service(current, pool, Uploads(limits), metrics, limits, version("fruits"))
        server = HttpServer(create_app(service, token), limits)
        for decoder in decoders:
            decoder.wait_until_ready()
        on_failure.pop_all()  # from here on, the application closes the pool
    return server, service
