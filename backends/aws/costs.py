"""What a job costs on a cluster, before it is started: ``fruits cluster cost``.

An estimate from two things that were measured elsewhere: how many images a core does in a second, and what AWS asks
for an hour. Requests to S3, storage and the traffic between regions are not in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from fruits.clusters.clouds import CloudCluster, EmrCluster
from fruits.errors import SettingsError

__all__ = ["IMAGES_PER_SECOND", "PRICES", "PRICES_OF", "Cost", "cost"]

# Featurize on Spark, 223 images/s on the two cores of the machine that docs/performance.md names, on 2026-11-23, by
# `fruits bench REAL --scenario featurize,bare-loop,ceiling --backend dask,spark --workers 2 --images 5120 --repeat 5`.
IMAGES_PER_SECOND = 111.5
THREADS_PER_CORE = 2  # a vCPU of the c and m families is one of two threads of a core
# From the request to the first task: machines, bootstrap, the engine. Our environment takes half a minute of it (on EC2
# twice: the scheduler's comes first); the rest is what AWS' documentation and users say, and was not measured by us.
EMR_START_MINUTES, EC2_START_MINUTES = 8.0, 4.0
# Of the on-demand price, and at most so many dollars an hour: aws.amazon.com/emr/pricing
EMR_SHARE, EMR_MOST = 0.25, 0.27

# Dollars an hour for one vCPU of a family, on demand and as Spot: the sizes of a family cost in proportion. From the
# price list that skypilot-org/skypilot-catalog publishes (catalogs/v8/aws/vms.csv); of Spot, the middle of the zones.
PRICES_OF = "2026, catalogue v8"
PRICES = {
    ("us-east-1", "c7i"): (0.714 / 16, 0.3173 / 16),
    ("us-east-2", "c7i"): (0.714 / 16, 0.2695 / 16),
    ("us-west-2", "c7i"): (0.714 / 16, 0.3399 / 16),
    ("ca-central-1", "c7i"): (0.7812 / 16, 0.3152 / 16),
    ("eu-central-1", "c7i"): (0.8148 / 16, 0.3446 / 16),
    ("eu-north-1", "c7i"): (0.7644 / 16, 0.2272 / 16),
    ("eu-west-1", "c7i"): (0.76608 / 16, 0.4206 / 16),
    ("eu-west-2", "c7i"): (0.8484 / 16, 0.3212 / 16),
    ("eu-west-3", "c7i"): (0.8484 / 16, 0.3016 / 16),
}
VCPUS = {"large": 2, "xlarge": 4}  # and 4 for each more: 2xlarge has 8


@dataclass(frozen=True, slots=True)
class Cost:
    """What a job comes to.

    Attributes
    ----------
    workers : str
        The nodes that work, as they are asked for.
    vcpus : int
        Those that work at the same time.
    minutes : float
        From the request to the last row, with the start of the cluster.
    vcpu_hours : float
        Of the working nodes.
    dollars : float
        For all nodes, and EMR itself.
    region : str
    prices_of : str
        When the prices were taken.
    """

    workers: str
    vcpus: int
    minutes: float
    vcpu_hours: float
    dollars: float
    region: str
    prices_of: str = PRICES_OF


def cost(
    settings: CloudCluster, images: int, *, region: str, images_per_second: float = IMAGES_PER_SECOND, spot: bool = True
) -> Cost:
    """Return what it costs to run the network over so many images.

    Parameters
    ----------
    settings : EmrCluster or DaskEc2Cluster
    images : int
    region : str
    images_per_second : float, default :data:`IMAGES_PER_SECOND`
        Of one core, that is of two vCPUs.
    spot : bool, default True
        Whether Spot is had where it is asked for.

    Raises
    ------
    SettingsError
        The count is not one, or no price is known.
    """
    if images < 1:
        raise SettingsError(f"--images {images}: not allowed. Allowed: a count of at least 1.")
    if images_per_second <= 0:
        raise SettingsError(f"--images-per-second {images_per_second:g}: not allowed. Allowed: a speed above 0.")
    asked = _nodes(settings)
    each, count = vcpus(asked.worker), asked.on_demand + asked.others
    minutes = asked.start_minutes + images / (images_per_second / THREADS_PER_CORE * each * count) / 60
    on_demand, cheaper = (price * each for price in _price(asked.worker, region))
    fee = min(on_demand * asked.share, EMR_MOST)
    other = cheaper if asked.spot and spot else on_demand
    # The leading node's family costs a little more, and is as good as one more worker of its size.
    leading = _price(asked.worker, region)[0] * vcpus(asked.leader)
    hourly = asked.on_demand * on_demand + asked.others * other + count * fee + leading * (1 + asked.share)
    return Cost(
        workers=f"{asked.on_demand} + {asked.others} {asked.worker}" if asked.on_demand else f"{count} {asked.worker}",
        vcpus=each * count,
        minutes=round(minutes, 1),
        vcpu_hours=round(each * count * minutes / 60, 1),
        dollars=round(hourly * minutes / 60, 2),
        region=region,
    )


class _Nodes(NamedTuple):
    """What a cluster is made of, and the share of the nodes' price that comes on top."""

    start_minutes: float
    leader: str
    worker: str
    on_demand: int
    others: int
    spot: bool  # whether those others are
    share: float


def _nodes(settings: CloudCluster) -> _Nodes:
    if isinstance(settings, EmrCluster):
        return _Nodes(
            start_minutes=EMR_START_MINUTES,
            leader=settings.master_type,
            worker=settings.worker_types[0],
            on_demand=settings.core_nodes,
            others=settings.task_nodes,
            spot=settings.spot,
            share=EMR_SHARE,
        )
    return _Nodes(
        start_minutes=EC2_START_MINUTES,
        leader=settings.scheduler_type,
        worker=settings.worker_type,
        on_demand=0,
        others=settings.maximum,
        spot=settings.spot,
        share=0.0,
    )


def vcpus(instance_type: str) -> int:
    """Return the number of vCPUs of an instance type, by its size.

    Raises
    ------
    SettingsError
        The size is not one of ``large``, ``xlarge``, ``2xlarge``, …
    """
    size = instance_type.partition(".")[2]
    if size in VCPUS:
        return VCPUS[size]
    number = size.removesuffix("xlarge")
    if not (size.endswith("xlarge") and number.isdecimal()):
        raise SettingsError(f"{instance_type}: its number of vCPUs is not known. Allowed: large, xlarge, 2xlarge, ….")
    return 4 * int(number)


def _price(instance_type: str, region: str) -> tuple[float, float]:
    family = instance_type.partition(".")[0]
    if (region, family) not in PRICES:
        known = ", ".join(f"{name} in {where}" for where, name in PRICES)
        raise SettingsError(
            f"No price of {family} in {region} is known here; see https://calculator.aws. Known: {known}."
        )
    return PRICES[region, family]
