"""The EC2 instances of a Dask cluster: one scheduler, and workers that are replaced when Spot reclaims them.

Dask Cloud Provider is not used. Through its public interface its ``EC2Cluster`` cannot encrypt the root volume, require
IMDSv2, tag network interfaces, install pinned packages, or stop waiting for a scheduler that does not start; and it
leaves instances running when a start fails.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from botocore.exceptions import ClientError

from backends.aws.account.clients import Account, Notify, translated_errors
from backends.aws.ec2.dask_node import PORT
from backends.aws.ec2.launch import LaunchSettings
from backends.aws.instance_types import vcpus
from fruits.errors import FruitsError, JobError

START_SECONDS = 900.0  # an instance starts, and builds its environment from the wheelhouse
CHECK_SECONDS = 30.0  # between two counts of the workers
CONNECT_SECONDS = 5.0
MOST_STARTS = 5  # of a worker, on average: more often, instances end for another reason than Spot
ALIVE = ["pending", "running"]
# EC2's error codes for missing Spot capacity: https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html
# The last one: the role that Spot needs does not exist, and the user may not create it; init creates it.
NO_SPOT = {
    "InsufficientInstanceCapacity",
    "MaxSpotInstanceCountExceeded",
    "SpotMaxPriceTooLow",
    "UnfulfillableCapacity",
    "AuthFailure.ServiceLinkedRoleCreationNotPermitted",
}


class Machines:
    """Instances of one cluster.

    Parameters
    ----------
    account : Account
    launch : LaunchSettings
    notify : callable
        Receives messages.
    """

    def __init__(self, account: Account, launch: LaunchSettings, notify: Notify) -> None:
        self._ec2 = account.client("ec2")
        self._launch = launch
        self._notify = notify
        self._spot = launch.settings.spot
        self._started = 0

    def start_scheduler(self) -> tuple[str, str]:
        """Start the scheduler, and return its addresses for the client and for the workers when it answers.

        Raises
        ------
        JobError
            It has ended, or did not answer in time; names the instance and the command that shows its log.
        """
        launch = self._launch
        (instance,) = self._run(launch.request("scheduler", launch.settings.scheduler_type, 1, launch.script()))
        identifier, end = str(instance["InstanceId"]), time.monotonic() + START_SECONDS
        look = f"Its log: aws ec2 get-console-output --latest --output text --instance-id {identifier}"
        host = "…"
        while time.monotonic() < end:
            with translated_errors("look up the scheduler"):
                pages = self._ec2.describe_instances(InstanceIds=[identifier])["Reservations"]
            (found,) = (machine for page in pages for machine in page["Instances"])
            if found["State"]["Name"] not in ALIVE:
                reason = found.get("StateReason", {}).get("Message", "no reason is given")
                raise JobError(f"The scheduler on {identifier} has ended: {reason}. {look}")
            private = str(found["PrivateIpAddress"])
            host = str(found.get("PublicIpAddress", "…")) if launch.settings.public else private
            if _answers(host):
                return f"tls://{host}:{PORT}", f"tls://{private}:{PORT}"
            time.sleep(1)
        raise JobError(
            f"The scheduler on {identifier} did not answer at {host}:{PORT} within {START_SECONDS:g} s. Check that "
            f"this machine can reach it (`public` and `client` in cluster.yaml), and that it can reach S3. {look}"
        )

    @contextmanager
    def workers(self, scheduler: str) -> Iterator[None]:
        """Start the workers, and replace those that end, until the context ends."""
        self._fill(scheduler)
        ended = threading.Event()

        def keep() -> None:
            while not ended.wait(CHECK_SECONDS):
                try:
                    self._fill(scheduler)
                except FruitsError as error:  # the job goes on with the workers that there are
                    self._notify(str(error))

        thread = threading.Thread(target=keep, name="fruits-ec2-workers", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _fill(self, scheduler: str) -> None:
        """Start the workers that are missing."""
        launch, wanted = self._launch, self._launch.settings.worker_nodes
        filters = [
            {"Name": "tag:Name", "Values": [launch.instance_name("worker")]},
            {"Name": "instance-state-name", "Values": ALIVE},
        ]
        with translated_errors("look up the workers"):
            pages = self._ec2.get_paginator("describe_instances").paginate(Filters=filters)
            alive = sum(len(each["Instances"]) for page in pages for each in page["Reservations"])
        missing = wanted - alive
        if missing <= 0:
            return
        if self._started + missing > MOST_STARTS * wanted:
            raise JobError(
                f"{self._started} worker instances were started for {wanted}, and {alive} are running: no more are "
                "started. See the log of one: aws ec2 get-console-output --latest --output text --instance-id …"
            )
        script = launch.script(scheduler, vcpus(launch.settings.worker_type))
        request = launch.request("worker", launch.settings.worker_type, missing, script)
        self._started += len(self._run(request, spot=self._spot))

    def _run(self, request: dict[str, Any], *, spot: bool = False) -> list[dict[str, Any]]:
        """Start instances; on demand if Spot has none."""
        one_time = {"SpotInstanceType": "one-time", "InstanceInterruptionBehavior": "terminate"}
        market = {"InstanceMarketOptions": {"MarketType": "spot", "SpotOptions": one_time}} if spot else {}
        with translated_errors("start instances"):
            try:
                return list(self._ec2.run_instances(**request, **market)["Instances"])
            except ClientError as error:
                code = error.response["Error"]["Code"]
                if not spot or code not in NO_SPOT:
                    raise
                self._notify(f"Spot has no capacity for {request['InstanceType']} ({code}); starting it on demand")
            return list(self._ec2.run_instances(**request)["Instances"])


def _answers(host: str) -> bool:
    try:
        with socket.create_connection((host, PORT), timeout=CONNECT_SECONDS):
            return True
    except OSError:
        return False
