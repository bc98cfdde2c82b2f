"""Estimate the cost of a job on a cluster before it starts: ``fruits cluster cost``.

The estimate combines the measured speed of a core with AWS prices. It excludes S3 requests, storage and traffic between
regions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from fruits.clusters.clouds import CloudCluster, EmrCluster
from fruits.errors import SettingsError

__all__ = ["IMAGES_PER_SECOND", "PRICES", "PRICES_OF", "Cost", "cost"]

# Featurize on Spark: 223 images/s on two cores (docs/performance.md), on 2026-11-23, with
# `fruits bench REAL --scenario featurize,bare-loop,ceiling --backend dask,spark --workers 2 --images 5120 --repeat 5`.
IMAGES_PER_SECOND = 111.5
THREADS_PER_CORE = 2  # a vCPU of the c and m families is one of two threads of a core
# From the request to the first task: instances, bootstrap, engine. Building the environment takes 0.5 minutes of it (on
# EC2 twice, as the scheduler starts first); the rest is from AWS documentation and user reports, not measured.
EMR_START_MINUTES, EC2_START_MINUTES = 8.0, 4.0
# EMR's fee: a share of the on-demand price, up to a maximum in dollars per hour (aws.amazon.com/emr/pricing)
EMR_SHARE, EMR_MOST = 0.25, 0.27

# Dollars per vCPU-hour of an instance family, on demand and Spot (median of the zones). Sizes cost in proportion.
# From the price list in skypilot-org/skypilot-catalog (catalogs/v8/aws/vms.csv).
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
VCPUS = {"large": 2, "xlarge": 4}  # and 4 times N for Nxlarge


@dataclass(frozen=True, slots=True)
class Cost:
    """The estimate for a job.

    Attributes
    ----------
    workers : str
        The number and type of the worker nodes.
    vcpus : int
        The vCPUs of all worker nodes.
    minutes : float
        From the request to the last row, including the start of the cluster.
    vcpu_hours : float
        Of the worker nodes.
    dollars : float
        For all nodes, including EMR's fee.
    region : str
    prices_of : str
        The date and source of the prices.
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
    """Estimate the cost of running the network over a number of images.

    Parameters
    ----------
    settings : EmrCluster or DaskEc2Cluster
    images : int
    region : str
    images_per_second : float, default :data:`IMAGES_PER_SECOND`
        Of one core, which is two vCPUs.
    spot : bool, default True
        Whether Spot capacity is available; False estimates on-demand prices.

    Raises
    ------
    SettingsError
        The number of images or the speed is not allowed, or the price is unknown.
    """
    if images < 1:
        raise SettingsError(f"--images {images}: not allowed. Allowed: a count of at least 1.")
    if images_per_second <= 0:
        raise SettingsError(f"--images-per-second {images_per_second:g}: not allowed. Allowed: a speed above 0.")
    nodes = _nodes(settings)
    each, count = vcpus(nodes.worker), nodes.on_demand + nodes.others
    minutes = nodes.start_minutes + images / (images_per_second / THREADS_PER_CORE * each * count) / 60
    on_demand, spot_price = (price * each for price in _price(nodes.worker, region))
    fee = min(on_demand * nodes.share, EMR_MOST)
    other = spot_price if nodes.spot and spot else on_demand
    # The price of the leader's own family is not in the table, and is close to that of the worker's.
    leading = _price(nodes.worker, region)[0] * vcpus(nodes.leader)
    hourly = nodes.on_demand * on_demand + nodes.others * other + count * fee + leading * (1 + nodes.share)
    return Cost(
        workers=f"{nodes.on_demand} + {nodes.others} {nodes.worker}" if nodes.on_demand else f"{count} {nodes.worker}",
        vcpus=each * count,
        minutes=round(minutes, 1),
        vcpu_hours=round(each * count * minutes / 60, 1),
        dollars=round(hourly * minutes / 60, 2),
        region=region,
    )


class _Nodes(NamedTuple):
    """The nodes of a cluster, and EMR's fee as a share of their price."""

    start_minutes: float
    leader: str
    worker: str
    on_demand: int
    others: int
    spot: bool  # whether the others are Spot
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
        raise SettingsError(f"{instance_type}: unknown size. Allowed: large, xlarge, 2xlarge, ….")
    return 4 * int(number)


def _price(instance_type: str, region: str) -> tuple[float, float]:
    family = instance_type.partition(".")[0]
    if (region, family) not in PRICES:
        known = ", ".join(f"{name} in {where}" for where, name in PRICES)
        raise SettingsError(
            f"The price of {family} in {region} is unknown. Use https://calculator.aws. Known prices: {known}."
        )
    return PRICES[region, family]
