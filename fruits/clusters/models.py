"""Models of the clusters in ``cluster.yaml`` that run on this machine or at an address.

The field descriptions are the reference at the top of ``cluster.yaml``; see :mod:`fruits.clusters.reference`.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

HOST = re.compile(r"[\w.-]+")
MOST_WORKERS = 2_048  # the largest cloud instance has 1,920 cores, and each worker uses one


class StrictModel(BaseModel):
    """A model that rejects unknown keys and values of another type."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ClusterSettings(StrictModel):
    """The key of every cluster."""

    backend: str = Field(description="The engine: dask, spark or local.")


Workers = Annotated[int, Field(gt=0, le=MOST_WORKERS)]


class LocalCluster(ClusterSettings):
    """Threads of the driver's process."""

    backend: Literal["local"]
    workers: Workers | None = Field(
        default=None,
        description="The number of tasks that run at once. Default: one per CPU available to the process, within its "
        "quota.",
    )


def _dashboard_address(value: object) -> object:
    """Return a dashboard's address as ``host:port``; a port alone is on the loopback interface."""
    host, _, port = f"127.0.0.1:{value}".rpartition(":") if isinstance(value, int) else str(value).rpartition(":")
    if isinstance(value, bool) or not HOST.fullmatch(host) or not port.isdecimal() or int(port) > 65535:
        raise PydanticCustomError(
            "dashboard", "not the address of a dashboard. Allowed: a port, such as 8787, or host:port, 0.0.0.0:8787"
        )
    return f"{host}:{port}"


class AddressableCluster(ClusterSettings):
    """An engine that is started on this machine, or a running cluster at an address."""

    workers: Workers | None = Field(
        default=None, description="As above, for an engine on this machine; cannot be combined with address."
    )
    address: Annotated[str, Field(min_length=1)] | None = Field(
        default=None,
        description="A running cluster: a Dask scheduler (tcp://host:8786) or a Spark master (spark://host:7077, yarn, "
        "k8s://…). Default: an engine is started on this machine.",
    )
    dashboard: Annotated[str, BeforeValidator(_dashboard_address)] | None = Field(
        default=None,
        description="The engine's web page, for an engine on this machine: a port, such as 8787, that only this "
        "machine reaches, or host:port. Every user who reaches it can read it. The job prints its address. Dask needs "
        "pip install 'dask[diagnostics]'. Default: no page.",
    )

    @model_validator(mode="after")
    def _address_excludes_workers_and_dashboard(self) -> Self:
        for name in ("workers", "dashboard"):
            if self.address is not None and getattr(self, name) is not None:
                raise PydanticCustomError("both", f"{name} cannot be combined with address. Remove one of them")
        return self


class DaskCluster(AddressableCluster):
    """Dask workers on this machine, or a running Dask scheduler."""

    backend: Literal["dask"]


class SparkCluster(AddressableCluster):
    """A Spark session on this machine, or at a running Spark master."""

    backend: Literal["spark"]
    conf: dict[str, str] = Field(
        default_factory=dict,
        description="Properties of the session, as in spark-defaults.conf. Quote every value.",
    )
