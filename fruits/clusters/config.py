"""Named places to run: what ``cluster.yaml``, the environment and the command line say, made into one :class:`Cluster`.

The order in which they win is written at the top of ``cluster.yaml``.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Annotated, Literal, Self

import yaml
from pydantic import BeforeValidator, Discriminator, Field, Tag, ValidationError, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from fruits.clusters.clouds import AwsCluster, CloudCluster, DaskEc2Cluster, EmrCluster, Settings
from fruits.clusters.strict_yaml import line_of, parse
from fruits.errors import SettingsError
from fruits.text import brief, quoted

__all__ = ["BUILT_IN", "Cluster", "ClusterFile", "DaskCluster", "LocalCluster", "SparkCluster", "load", "resolve"]

FILE_NAME = "cluster.yaml"
HOST = re.compile(r"[\w.-]+")
LARGEST = 2**16  # bytes of a file; that of this project has 5,000
SHOWN = 10  # problems of a file that are told at once
MOST_WORKERS = 2_048  # the largest machine that is to be had in a cloud has 1,920 cores, and each worker takes one
THIS_MACHINE = {"dask": "local-dask", "spark": "local-spark", "local": "local"}  # what a backend alone means


@dataclass(frozen=True, slots=True)
class Cluster:
    """The place where a job runs, after every source was asked.

    Attributes
    ----------
    name : str
        Its name in ``cluster.yaml``.
    backend : {"dask", "spark", "local"}
        The engine.
    workers : int or None
        How many tasks run at once; None for an address, which has the workers that it has.
    address : str or None
        The running cluster to attach to; None starts one on this machine.
    conf : mapping of str to str
        Properties of the Spark session.
    dashboard : str or None
        Where an engine that is started on this machine shows its work: ``host:port``; None is nowhere.
    cloud : EmrCluster, DaskEc2Cluster or None
        The settings of a cluster that is made in a cloud, which then has the workers that these say.
    """

    name: str
    backend: str
    workers: int | None
    address: str | None = None
    conf: Mapping[str, str] = field(default_factory=dict)
    cloud: CloudCluster | None = None
    dashboard: str | None = None


Workers = Annotated[int, Field(gt=0, le=MOST_WORKERS)]


class LocalCluster(Settings):
    """Threads of the driver's own process."""

    backend: Literal["local"]
    workers: Workers | None = None


def _listening(value: object) -> object:
    """Return where a dashboard is to be as ``host:port``; a port alone means this machine alone."""
    host, _, port = f"127.0.0.1:{value}".rpartition(":") if isinstance(value, int) else str(value).rpartition(":")
    if isinstance(value, bool) or not HOST.fullmatch(host) or not port.isdecimal() or int(port) > 65535:
        raise PydanticCustomError(
            "dashboard", "not where a dashboard can be: give a port of this machine, 8787, or host:port, 0.0.0.0:8787"
        )
    return f"{host}:{port}"


class _Addressable(Settings):
    workers: Workers | None = None
    address: Annotated[str, Field(min_length=1)] | None = None
    dashboard: Annotated[str, BeforeValidator(_listening)] | None = None

    @model_validator(mode="after")
    def _workers_or_address(self) -> Self:
        if self.workers is not None and self.address is not None:
            raise PydanticCustomError("both", "an address has the workers that it has: leave out workers or address")
        if self.dashboard is not None and self.address is not None:
            raise PydanticCustomError(
                "both", "a running cluster has the dashboard that it has: leave out dashboard or address"
            )
        return self


class DaskCluster(_Addressable):
    """Dask workers on this machine, or a running Dask scheduler."""

    backend: Literal["dask"]


class SparkCluster(_Addressable):
    """A Spark session on this machine, or one at a running Spark master."""

    backend: Literal["spark"]
    conf: dict[str, str] = Field(default_factory=dict)


# What an entry of the file is: by its `backend`, and in a cloud by its `cloud`.
CLUSTERS: dict[str, type[Settings]] = {"dask": DaskCluster, "spark": SparkCluster, "local": LocalCluster}
CLOUDS: dict[str, type[AwsCluster]] = {
    "emr": EmrCluster,
    "dask-ec2": DaskEc2Cluster,
}


def _kind(entry: object) -> str | None:
    """Return the name of the model that an entry of the file is read with: its cloud, or else its backend."""
    says = entry.get if isinstance(entry, Mapping) else partial(getattr, entry)
    kind = says("cloud", None) or says("backend", None)
    return kind if isinstance(kind, str) else None


ClusterEntry = Annotated[
    Annotated[LocalCluster, Tag("local")]
    | Annotated[DaskCluster, Tag("dask")]
    | Annotated[SparkCluster, Tag("spark")]
    | Annotated[EmrCluster, Tag("emr")]
    | Annotated[DaskEc2Cluster, Tag("dask-ec2")],
    Discriminator(_kind),
]


class ClusterFile(Settings):
    """The content of a ``cluster.yaml``.

    Attributes
    ----------
    default : str
        The cluster that is used where nothing else names one.
    clusters : dict of str to cluster
        The places, by name.
    """

    default: str = "local-dask"
    clusters: dict[str, ClusterEntry] = Field(default_factory=dict)


BUILT_IN = ClusterFile(
    default="local-dask",
    clusters={
        "local-dask": DaskCluster(backend="dask"),
        "local-spark": SparkCluster(backend="spark"),
        "local": LocalCluster(backend="local"),
        "dask-address": DaskCluster(backend="dask", address="tcp://127.0.0.1:8786"),
        "spark-address": SparkCluster(backend="spark", address="spark://127.0.0.1:7077"),
        "spark-yarn": SparkCluster(backend="spark", address="yarn"),
        "emr": EmrCluster(backend="spark", cloud="emr"),
        "emr-notebook": EmrCluster(backend="spark", cloud="emr", notebook=True, idle_minutes=60),
        "dask-ec2": DaskEc2Cluster(backend="dask", cloud="dask-ec2"),
    },
)


def resolve(
    *,
    cluster: str | None = None,
    backend: str | None = None,
    workers: int | None = None,
    file: str | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Cluster:
    """Return the cluster that the command line, the environment and ``cluster.yaml`` choose, in this order.

    Parameters
    ----------
    cluster, backend : str, optional
        As given by ``--cluster`` and ``--backend``.
    workers : int, optional
        As given by ``--workers``.
    file : str, optional
        As given by ``--cluster-file``.
    environ : mapping, default ``os.environ``
        Where ``FRUITS_CLUSTER``, ``FRUITS_BACKEND``, ``FRUITS_WORKERS`` and ``FRUITS_CLUSTER_FILE`` are looked up.

    Raises
    ------
    SettingsError
        The file is missing or wrong, a name is not known, a cluster and a backend do not agree, or the workers are not
        a count.
    """
    settings = load(file, environ=environ)
    name, wanted, chosen_by = _choose(settings, cluster, backend, environ)
    if name not in settings.clusters:
        raise SettingsError(f"{chosen_by} {brief(name)}: no such cluster. Allowed: {', '.join(settings.clusters)}.")
    place = settings.clusters[name]
    if wanted and wanted != place.backend:
        raise SettingsError(
            f"The backend {wanted} and the cluster {name} do not agree: {name} runs on {place.backend}. "
            f"Leave one of them out, or choose a cluster of {wanted}: "
            f"{', '.join(other for other, entry in settings.clusters.items() if entry.backend == wanted)}."
        )
    address = place.address if isinstance(place, _Addressable) else None
    if address is not None and workers is not None:
        raise SettingsError(
            f"--workers {workers}: the cluster {name} runs at {address} and has the workers that it has. "
            "Leave --workers out, or choose a cluster without an address."
        )
    if isinstance(place, AwsCluster):
        if workers is not None:
            raise SettingsError(
                f"--workers {workers}: the cluster {name} is made as large as its entry in {FILE_NAME} says. "
                "Leave --workers out, or change the entry."
            )
        return Cluster(name=name, backend=place.backend, workers=None, cloud=place)
    return Cluster(
        name=name,
        backend=place.backend,
        workers=None if address is not None else _workers(workers, environ) or place.workers or _cores(),
        address=address,
        conf=place.conf if isinstance(place, SparkCluster) else {},
        dashboard=place.dashboard if isinstance(place, _Addressable) else None,
    )


def load(file: str | None = None, *, environ: Mapping[str, str] = os.environ) -> ClusterFile:
    """Return the built-in clusters with those of the file added: `file`, ``FRUITS_CLUSTER_FILE``, ``./cluster.yaml``.

    Raises
    ------
    SettingsError
        A file that was named does not exist, or it is not a valid ``cluster.yaml``; names the file and the line.
    """
    named = file or environ.get("FRUITS_CLUSTER_FILE")
    path = named or FILE_NAME
    if named is None and not os.path.exists(path):
        return BUILT_IN
    try:
        text = _read(path).decode("utf-8")
    except Exception as error:  # each file system has errors of its own
        reason = getattr(error, "strerror", None) or str(error).rstrip(".") or type(error).__name__
        if isinstance(error, UnicodeDecodeError):
            reason = "it is not UTF-8 text"
        elif isinstance(error, FileNotFoundError):
            reason = os.strerror(error.errno or errno.ENOENT)
        raise SettingsError(
            f"{'--cluster-file' if file else 'FRUITS_CLUSTER_FILE' if named else 'The file'} {path} cannot be read: "
            f"{reason}. Give the path or the address of a cluster.yaml, or none to use the built-in clusters."
        ) from error
    try:
        content, root = parse(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = "" if mark is None else f", line {mark.line + 1}"
        raise SettingsError(f"{path}{where}: {error.problem or error.context}.") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise SettingsError(f"{path}: this is not YAML: {error}.") from error
    try:
        settings = ClusterFile.model_validate({} if content is None else content)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        lines = [f"{path}, line {line_of(root, problem['loc'])}: {_words(problem)}" for problem in problems[:SHOWN]]
        if len(problems) > SHOWN:
            lines.append(f"{path}: {len(problems) - SHOWN} more are wrong.")
        raise SettingsError("\n".join(lines)) from error
    return ClusterFile(default=settings.default, clusters={**BUILT_IN.clusters, **settings.clusters})


def _read(address: str) -> bytes:
    """Return the bytes of the file at a path of this machine, or at an address such as one of S3."""
    if "://" in address:
        from fruits.storage.stores import open_address  # not for every command: it brings fsspec

        file_system, path = open_address(address)
        content: bytes = file_system.cat_file(path)
    else:
        if os.path.exists(address) and not os.path.isfile(address) and not os.path.isdir(address):
            raise ValueError("it is a pipe or a device, and no file")  # to open it could wait for ever
        with open(address, "rb") as file:
            content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise ValueError(f"it has more than {LARGEST:,} bytes")
    return content


def _choose(
    settings: ClusterFile, cluster: str | None, backend: str | None, environ: Mapping[str, str]
) -> tuple[str, str | None, str]:
    """Return the name of the cluster, the backend it has to have where one was asked for, and what named it."""
    levels = (
        (cluster, backend, "--cluster", "--backend"),
        (environ.get("FRUITS_CLUSTER"), environ.get("FRUITS_BACKEND"), "FRUITS_CLUSTER", "FRUITS_BACKEND"),
    )
    for said_cluster, said_backend, by_cluster, by_backend in levels:
        if said_backend and said_backend not in THIS_MACHINE:
            raise SettingsError(f"{by_backend} {said_backend}: no such backend. Allowed: {', '.join(THIS_MACHINE)}.")
        if said_cluster:
            return said_cluster, said_backend or None, by_cluster
        if said_backend:
            return THIS_MACHINE[said_backend], said_backend, by_backend
    return settings.default, None, f"{FILE_NAME}: default:"


def _workers(given: int | None, environ: Mapping[str, str]) -> int | None:
    """Return the count that the command line or the environment asks for."""
    source, text = ("--workers", str(given)) if given is not None else ("FRUITS_WORKERS", environ.get("FRUITS_WORKERS"))
    if not text:
        return None
    if not (text.isdecimal() and len(text) < 10 and 1 <= int(text) <= MOST_WORKERS):
        raise SettingsError(
            f"{source} {brief(text)}: not a count of workers. Allowed: a whole number, 1 to {MOST_WORKERS:,}."
        )
    return int(text)


def _cores() -> int:
    """Return how many cores this process may use; fewer than the machine has in a container or under taskset."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _words(problem: ErrorDetails) -> str:
    """Return what is wrong and what is allowed, for one error of pydantic."""
    location = problem["loc"]
    model: type[Settings] = ClusterFile
    if (
        len(location) > 2 and location[2] != "[key]"
    ):  # clusters, its name, then its kind, which pydantic puts in to tell the models apart
        model = {**CLUSTERS, **CLOUDS}[str(location[2])]
        location = (*location[:2], *location[3:])
    if location and location[-1] == "[key]":
        return f"{brief('.'.join(map(str, location[:-1])))}: a name has to be text. Put it between quotation marks."
    name = brief(".".join(map(str, location))) or "the file"
    if problem["type"] == "extra_forbidden":
        return f"{name}: not known. Allowed: {', '.join(model.model_fields)}."
    if problem["type"] in ("union_tag_invalid", "union_tag_not_found"):
        allowed = (f"backend: {backend}" for backend in CLUSTERS), (f"cloud: {cloud}" for cloud in CLOUDS)
        entry = problem["input"] if isinstance(problem["input"], Mapping) else {}
        said = ", ".join(f"{key}: {brief(entry[key])}" for key in ("backend", "cloud") if key in entry)
        needs = f"{said}: not known" if said else "needs its backend"
        return f"{name}: {needs}. Allowed: {', '.join(chain(*allowed))}."
    # A property of Spark may be a secret, and so may what a whole entry holds.
    secret = "conf" in location or isinstance(problem["input"], Mapping)
    given = "" if secret else f" Given: {quoted(problem['input'])}."
    if problem["type"] == "string_pattern_mismatch":
        field = model.model_fields.get(str(location[2])) if len(location) > 2 else None
        if field is not None and field.description is not None:
            return f"{name}: not {field.description}.{given}"
    return f"{name}: {problem['msg'][0].lower()}{problem['msg'][1:]}.{given}"
