"""Estimate the cost of a job on a cluster before it starts: ``fruits cluster cost``.

The estimate combines the measured speed of a core with AWS prices. It excludes S3 requests, storage and traffic between
regions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from backends.aws.instance_types import vcpus
from fruits.clusters.clouds import CloudCluster, EmrCluster, EmrServerlessCluster
from fruits.errors import SettingsError

__all__ = ["IMAGES_PER_SECOND", "PRICES", "PRICES_OF", "Cost", "cost"]

# Featurize on Spark: 223 images/s on two cores (docs/performance.md), on 2026-11-23, with
# `fruits bench REAL --scenario featurize,bare-loop,ceiling --backend dask,spark --workers 2 --images 5120 --repeat 5`.
IMAGES_PER_SECOND = 111.5
THREADS_PER_CORE = 2  # a vCPU of the c and m families is one of two threads of a core
# From the request to the first task: instances, bootstrap, engine. Building the environment takes 0.5 minutes of it (on
# EC2 twice, as the scheduler starts first); the rest is from AWS documentation and user reports, not measured.
EMR_START_MINUTES, EC2_START_MINUTES, SERVERLESS_START_MINUTES = 8.0, 4.0, 2.0
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
# Dollars per vCPU-hour and GB-hour of EMR Serverless on x86, in us-east-1 (aws.amazon.com/emr/pricing, as public cost
# calculators quote it in 2026). Other regions were not looked up; their prices for EC2 differ by up to 20 %.
SERVERLESS_VCPU, SERVERLESS_GB = 0.052624, 0.0057785
WORKER_VCPUS, WORKER_GB = 4, 8  # of a worker of EMR Serverless, one of which is the driver


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
    prices_of: str


def cost(
    settings: CloudCluster, images: int, *, region: str, images_per_second: float = IMAGES_PER_SECOND, spot: bool = True
) -> Cost:
    """Estimate the cost of running the network over a number of images.

    Parameters
    ----------
    settings : EmrCluster, EmrServerlessCluster or DaskEc2Cluster
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
    size = _size(settings, region, spot=spot)
    minutes = size.start_minutes + images / (images_per_second / THREADS_PER_CORE * size.vcpus) / 60
    return Cost(
        workers=size.workers,
        vcpus=size.vcpus,
        minutes=round(minutes, 1),
        vcpu_hours=round(size.vcpus * minutes / 60, 1),
        dollars=round(size.hourly * minutes / 60, 2),
        region=region,
        prices_of=size.prices_of,
    )


class _Size(NamedTuple):
    """A cluster: its workers, and the dollars per hour of all of it."""

    start_minutes: float
    workers: str
    vcpus: int
    hourly: float
    prices_of: str = PRICES_OF


def _size(settings: CloudCluster, region: str, *, spot: bool) -> _Size:
    if isinstance(settings, EmrServerlessCluster):
        count = settings.maximum_vcpus // WORKER_VCPUS  # with the driver
        hourly = count * (WORKER_VCPUS * SERVERLESS_VCPU + WORKER_GB * SERVERLESS_GB)
        name = f"{count - 1} workers of {WORKER_VCPUS} vCPUs"
        return _Size(SERVERLESS_START_MINUTES, name, (count - 1) * WORKER_VCPUS, hourly, "2026, us-east-1")
    if isinstance(settings, EmrCluster):
        leader, worker, share, start = settings.master_type, settings.worker_types[0], EMR_SHARE, EMR_START_MINUTES
        steady, others = settings.core_nodes, settings.task_nodes
        if not steady:  # the master node does the work
            worker, steady = leader, 1
    else:
        leader, worker, share, start = settings.scheduler_type, settings.worker_type, 0.0, EC2_START_MINUTES
        steady, others = 0, settings.worker_nodes
    each, count = vcpus(worker), steady + others
    on_demand, spot_price = (price * each for price in _price(worker, region))
    # The price of the leader's own family is not in the table, and is close to that of the worker's.
    leading = _price(worker, region)[0] * vcpus(leader) * (1 + share)
    if isinstance(settings, EmrCluster) and not settings.core_nodes:
        leading = 0.0
    other = spot_price if settings.spot and spot else on_demand
    fee = min(on_demand * share, EMR_MOST)
    name = f"{steady} + {others} {worker}" if steady and others else f"{count} {worker}"
    return _Size(start, name, each * count, steady * on_demand + others * other + count * fee + leading)


def _price(instance_type: str, region: str) -> tuple[float, float]:
    family = instance_type.partition(".")[0]
    if (region, family) not in PRICES:
        known = ", ".join(f"{name} in {where}" for where, name in PRICES)
        raise SettingsError(
            f"The price of {family} in {region} is unknown. Use https://calculator.aws. Known prices: {known}."
        )
    return PRICES[region, family]
