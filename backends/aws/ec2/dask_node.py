"""What a machine of a Dask cluster on EC2 runs, in the environment that the wheelhouse gave it.

    python -m backends.aws.ec2.dask_node ADDRESS HOST                             the scheduler
    python -m backends.aws.ec2.dask_node ADDRESS HOST SCHEDULER NODE WORKERS      so many workers

ADDRESS is where the client has left :class:`Secrets`: in the bucket, which the machine reads with its instance profile,
and so neither in the user data, which everybody on the machine can read, nor on a command line. The program ends when
the cluster does, and the machine after it.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import dask
from distributed import Nanny, Scheduler

from backends.dask.cluster import CONFIG
from fruits.storage.folder import Folder

__all__ = ["PORT", "ROLES", "Secrets", "node_of", "worker_name"]

PORT = 8786
ROLES = ("scheduler", "worker", "client")  # to Dask, each with a certificate of its own; here all have one
# A worker that has lost its scheduler for so long ends, and its machine with it.
ORPHAN_SECONDS = 300


@dataclass(frozen=True, slots=True)
class Secrets:
    """What the machines of one cluster share with its client.

    Attributes
    ----------
    ca, cert, key : str
        The certificate of this cluster alone, and its key, as PEM. Every side shows it, and accepts no other.
    idle_seconds : int
        The scheduler ends when it had nothing to do for so long.
    """

    ca: str
    cert: str
    key: str
    idle_seconds: int

    @classmethod
    def read(cls, folder: Folder, name: str) -> Secrets:
        """Return what the client has left."""
        return cls(**folder.read_json(name))  # type: ignore[arg-type]

    def write(self, folder: Folder, name: str) -> None:
        """Leave them for the machines."""
        folder.write_json(name, asdict(self))

    def config(self) -> dict[str, Any]:
        """Return the configuration of Dask, for the machines and for the client."""
        pair = {"cert": self.cert, "key": self.key}
        return {
            "distributed.comm.require-encryption": True,
            "distributed.comm.tls.ca-file": self.ca,
            **{f"distributed.comm.tls.{role}.{part}": value for role in ROLES for part, value in pair.items()},
            **CONFIG,
        }


def worker_name(node: object, index: int) -> str:
    """Return the name of a worker of a node."""
    return f"{node}-{index}"


def node_of(state: Any) -> str:
    """Return the node of a worker, as the scheduler knows it: what is retired together."""
    return str(state.name).rpartition("-")[0]


async def main(address: str, host: str, scheduler: str | None = None, node: str = "", workers: str = "0") -> None:
    """Run the scheduler, or single-threaded workers, until the cluster ends."""
    folder, _, name = address.rpartition("/")
    secrets = Secrets.read(Folder(folder), name)
    with dask.config.set(secrets.config()):
        if scheduler is None:
            async with Scheduler(
                host=host, port=PORT, protocol="tls", dashboard=False, idle_timeout=secrets.idle_seconds
            ) as serving:
                await serving.finished()
            return
        nannies = [
            Nanny(
                scheduler,
                name=worker_name(node, index),
                host=host,
                protocol="tls",
                nthreads=1,
                death_timeout=ORPHAN_SECONDS,
                dashboard=False,
            )
            for index in range(int(workers))
        ]
        await asyncio.gather(*nannies)
        await asyncio.gather(*(nanny.finished() for nanny in nannies))


if __name__ == "__main__":
    words: Sequence[str] = sys.argv[1:]
    asyncio.run(main(*words))
