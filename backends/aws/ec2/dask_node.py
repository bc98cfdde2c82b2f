"""The program on an instance of a Dask cluster on EC2, in the environment that is built from the wheelhouse.

    python -m backends.aws.ec2.dask_node ADDRESS HOST                        a scheduler
    python -m backends.aws.ec2.dask_node ADDRESS HOST SCHEDULER WORKERS      a number of workers

ADDRESS is the S3 object with the :class:`Secrets`, which the instance reads with its instance profile: user data and
command lines are visible to every user of the instance. The program ends with the cluster, and the instance with the
program.
"""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

import dask
from distributed import Nanny, Scheduler

from backends.dask.cluster import CONFIG
from fruits.storage.folder import Folder

PORT = 8786
ROLES = ("scheduler", "worker", "client")  # Dask supports a certificate per role; here all roles share one
CHECK_SECONDS = 5.0  # between two looks for clients
FIRE_AND_FORGET = "fire-and-forget"  # a client that every scheduler has
ORPHAN_SECONDS = 300  # after which a worker without a scheduler ends, and its instance with it


@dataclass(frozen=True, slots=True)
class Secrets:
    """Secrets that the instances of one cluster share with its client.

    Attributes
    ----------
    cert, key : str
        The certificate of this cluster and its key, in PEM format. Each side presents it, and accepts no other.
    idle_seconds : int
        The scheduler shuts down after this many seconds without a client.
    """

    cert: str
    key: str
    idle_seconds: int

    @classmethod
    def read(cls, folder: Folder, name: str) -> Secrets:
        """Read the secrets that the client has written."""
        return cls(**folder.read_json(name))  # type: ignore[arg-type]

    def write(self, folder: Folder, name: str) -> None:
        """Write the secrets for the instances."""
        folder.write_json(name, asdict(self))

    def config(self) -> dict[str, Any]:
        """Return the Dask configuration of an instance."""
        pair = {"cert": self.cert, "key": self.key}
        return {
            "distributed.comm.require-encryption": True,
            "distributed.comm.tls.ca-file": self.cert,
            **{f"distributed.comm.tls.{role}.{part}": value for role in ROLES for part, value in pair.items()},
            **CONFIG,
        }


async def main(address: str, host: str, scheduler: str | None = None, workers: str = "0") -> None:
    """Run the scheduler, or single-threaded workers, until the cluster ends."""
    folder, _, name = address.rpartition("/")
    secrets = Secrets.read(Folder(folder), name)
    with dask.config.set(secrets.config()):
        if scheduler is None:
            async with Scheduler(host=host, port=PORT, protocol="tls", dashboard=False) as serving:
                await _until_abandoned(serving, secrets.idle_seconds)
            return
        nannies = [
            Nanny(
                scheduler,
                name=f"{host}-{index}",
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


async def _until_abandoned(scheduler: Scheduler, idle_seconds: float) -> None:
    """Wait until the scheduler has closed, or had no client for some time.

    Dask's own idle timeout counts tasks alone, and would close the cluster of a driver that lists many images.
    """
    last = time.monotonic()
    while time.monotonic() - last < idle_seconds:
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                await scheduler.finished()
            return
        except TimeoutError:
            if any(name != FIRE_AND_FORGET for name in scheduler.clients):
                last = time.monotonic()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
