"""Connections to Dask clusters, and checks of their workers."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import dask
from distributed import Client
from distributed.comm.addressing import get_address_host_port, normalize_address
from distributed.security import Security
from distributed.versions import VersionMismatchWarning

from backends.dask.launch import Connection
from fruits.errors import SettingsError

CONNECT_SECONDS = 5
LOCAL_SECONDS = 20  # for a cluster on this machine, which runs already
CERTIFICATE = ("distributed.comm.tls.ca-file", "distributed.comm.tls.client.cert", "distributed.comm.tls.client.key")
MATCHED = {"python": 2, "dask": 3, "distributed": 3}  # the parts of the version that must be equal
CONFIG = {  # of every cluster that Fruits starts
    # The executor's `retries` count the deaths of workers, not Dask.
    "distributed.scheduler.allowed-failures": 0,
    # A worker holds one task at a time, so that its death loses one.
    "distributed.scheduler.worker-saturation": 1.0,
    # Replace a worker, such as a stopped one, after 30 to 60 s without a heartbeat.
    "distributed.scheduler.worker-ttl": "30s",
    # The defaults interrupt a task 200 times per second, which slows the network by 6 %.
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "5s",
    # The default returns memory to the system at once, which zeroes its pages again: 67 of them for each image.
    "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": None,
}


def connect(connection: Connection) -> Client:
    """Return a client of a cluster that this process started."""
    security = Security(
        require_encryption=True,
        tls_ca_file=connection.certificate,
        tls_client_cert=connection.certificate,
        tls_client_key=connection.key,
    )
    return Client(connection.address, timeout=LOCAL_SECONDS, security=security, set_as_default=False)


def attach(address: str, security: Security | None = None) -> Client:
    """Return a client of the scheduler at `address`, which must run the Python and Dask versions of this process.

    Parameters
    ----------
    address : str
    security : distributed.Security, optional
        The certificate for a scheduler at ``tls://``; default: the one in Dask's configuration.

    Raises
    ------
    SettingsError
        No scheduler answers there, versions differ, or no certificate is configured.
    """
    missing = [name for name in CERTIFICATE if not dask.config.get(name, None)] if security is None else []
    if address.startswith("tls://") and missing:
        raise SettingsError(
            f"The Dask scheduler at {address} requires a certificate. In Dask's configuration these keys are "
            f"not set: {', '.join(missing)}. Set them to files in ~/.config/dask/dask.yaml, "
            "or in the environment, as DASK_DISTRIBUTED__COMM__TLS__CLIENT__CERT=/path/to/cert.pem and so on."
        )
    try:
        if not address.startswith("inproc://"):  # the others have a host and a port
            get_address_host_port(normalize_address(address))  # Dask's client leaves a traceback for an invalid one
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", VersionMismatchWarning)  # checked below
            client = Client(address, timeout=CONNECT_SECONDS, security=security, set_as_default=False)
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"No Dask scheduler answered at {address} within {CONNECT_SECONDS} seconds ({error}). "
            "Start one with `dask scheduler` and workers with `dask worker ADDRESS --nthreads 1`, "
            "or omit the address to run on this machine."
        ) from error
    try:
        check_workers(client)
    except SettingsError:
        client.close()
        raise
    return client


def check_workers(client: Client) -> None:
    """Check that scheduler and workers have the Python, Dask and Fruits versions of this process.

    Raises
    ------
    SettingsError
        A version differs, or a package is missing; names the hosts and the versions.
    """
    versions: Any = client.get_versions()
    here = versions["client"]["packages"]
    found: dict[str, list[str]] = {}  # the places of each difference
    for place, info in {"the scheduler": versions["scheduler"], **versions["workers"]}.items():
        there = {package: info["packages"].get(package) or "none" for package in MATCHED}
        differences = [
            f"{package} {there[package]} (this machine has {here[package]})"
            for package, parts in MATCHED.items()
            if there[package].split(".")[:parts] != here[package].split(".")[:parts]
        ]
        if differences:
            found.setdefault(", ".join(differences), []).append(place)
    if not found and versions["workers"]:
        found = _other_fruits(client)
    if found:
        text = "; ".join(f"{_listed(places)}: {difference}" for difference, places in found.items())
        raise SettingsError(
            f"The Dask cluster at {getattr(client.scheduler, 'address', None)} does not fit this machine. {text}. "
            "Install the same versions on both sides."
        )


def _other_fruits(client: Client) -> dict[str, list[str]]:
    """Return the workers whose package `fruits` differs, by the difference."""
    own = version("fruits")
    found: dict[str, list[str]] = {}
    # Functions of the standard library: one of this package could not be unpickled without it.
    versions: Mapping[str, Any] = client.run(version, "fruits", on_error="return")
    specs: Mapping[str, Any] = {}
    if not all(isinstance(there, str) for there in versions.values()):  # not installed, but perhaps on the path
        specs = client.run(importlib.util.find_spec, "backends", on_error="return")
    for worker, there in versions.items():
        if isinstance(there, str):
            difference = f"fruits {there} (this machine has {own})" if there != own else None
        else:
            missing = specs.get(worker) is None or isinstance(specs[worker], Exception)
            difference = f"fruits {own} is not installed (pip install 'fruits[dask]')" if missing else None
        if difference:
            found.setdefault(difference, []).append(worker)
    return found


def _listed(places: list[str], most: int = 3) -> str:
    """Return the first places, and the number of the others."""
    return ", ".join(places[:most]) + (f" and {len(places) - most} more" if len(places) > most else "")
