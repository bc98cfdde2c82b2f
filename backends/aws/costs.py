"""Estimate the cost of a job on a cluster before it starts: ``fruits cluster cost``.

The estimate combines the measured speed of a core with AWS prices. It excludes S3 requests, storage and traffic between
regions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib.resources import files
from typing import NamedTuple

import yaml

from backends.aws.instance_types import nodes_of, vcpus
from fruits.clusters.clouds import CloudCluster, EmrCluster, EmrServerlessCluster
from fruits.errors import SettingsError

# Featurize on Spark: 223 images/s on two cores (docs/performance.md), on 2026-11-23, with
# `fruits bench REAL --scenario featurize,bare-loop,ceiling --backend dask,spark --workers 2 --images 5120 --repeat 5`.
IMAGES_PER_SECOND = 111.5
THREADS_PER_CORE = 2  # a vCPU of the c and m families is one of two threads of a core
# From the request to the first task: instances, bootstrap, engine. Building the environment takes 0.5 minutes of it (on
# EC2 twice, as the scheduler starts first); the rest is from AWS documentation and user reports, not measured.
EMR_START_MINUTES, EC2_START_MINUTES, SERVERLESS_START_MINUTES = 8.0, 4.0, 2.0
# EMR's fee: a share of the on-demand price, up to a maximum in dollars per hour (aws.amazon.com/emr/pricing)
EMR_SHARE, EMR_MOST = 0.25, 0.27

PRICES_OF = "2026, catalogue v8"
PRICES: dict[str, dict[str, list[float]]] = yaml.safe_load(
    (files("backends.aws") / "prices.yaml").read_text(encoding="utf-8")
)
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
    settings: CloudCluster,
    images: int,
    *,
    region: str,
    images_per_second: float = IMAGES_PER_SECOND,
    spot: bool = True,
    worker_price: float | None = None,
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
    worker_price : float, optional
        Dollars per hour of a worker node, on demand and Spot alike; the leader costs in proportion to its vCPUs.
        Default: the known price.

    Raises
    ------
    SettingsError
        The number of images, the speed or the price is not allowed, or the price is unknown.
    """
    if images < 1:
        raise SettingsError(f"--images {images}: not allowed. Allowed: a count of at least 1.")
    if not 0 < images_per_second < math.inf:
        raise SettingsError(f"--images-per-second {images_per_second:g}: not allowed. Allowed: a speed above 0.")
    if worker_price is not None and not 0 <= worker_price < math.inf:
        raise SettingsError(f"--worker-price {worker_price:g}: not allowed. Allowed: dollars for an hour, 0 or more.")
    size = _size(settings, region, worker_price, spot=spot)
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
    prices_of: str


def _size(settings: CloudCluster, region: str, worker_price: float | None, *, spot: bool) -> _Size:
    if isinstance(settings, EmrServerlessCluster):
        if worker_price is not None:
            raise SettingsError("--worker-price: not allowed on EMR Serverless, which has no worker nodes. Omit it.")
        count = settings.maximum_vcpus // WORKER_VCPUS  # with the driver
        hourly = count * (WORKER_VCPUS * SERVERLESS_VCPU + WORKER_GB * SERVERLESS_GB)
        name = f"{count - 1} workers of {WORKER_VCPUS} vCPUs"
        return _Size(SERVERLESS_START_MINUTES, name, (count - 1) * WORKER_VCPUS, hourly, "2026, us-east-1")
    start, share = (EMR_START_MINUTES, EMR_SHARE) if isinstance(settings, EmrCluster) else (EC2_START_MINUTES, 0.0)
    leader, (worker, *_), steady, others = nodes_of(settings)
    alone = steady + others == 0  # the master node does the work
    if alone:
        worker, steady = leader, 1
    given = None if worker_price is None else worker_price / vcpus(worker)

    def hourly_of(instance_type: str, *, as_spot: bool = False) -> float:
        prices = _vcpu_prices(instance_type, region) if given is None else [given, given]
        on_demand, spot_price = (price * vcpus(instance_type) for price in prices)
        return min(on_demand * share, EMR_MOST) + (spot_price if as_spot else on_demand)

    hourly = steady * hourly_of(worker) + others * hourly_of(worker, as_spot=settings.spot and spot)
    if not alone:
        hourly += hourly_of(leader)
    name = f"{steady} + {others} {worker}" if steady and others else f"{steady + others} {worker}"
    prices_of = PRICES_OF if given is None else "the option --worker-price"
    return _Size(start, name, vcpus(worker) * (steady + others), hourly, prices_of)


def _vcpu_prices(instance_type: str, region: str) -> list[float]:
    """Return the dollars per vCPU-hour, on demand and Spot."""
    family = instance_type.partition(".")[0]
    for listed, prices in PRICES.items():
        if listed.startswith(f"{family}.") and region in prices:
            return [price / vcpus(listed) for price in prices[region]]
    families = ", ".join(listed.partition(".")[0] for listed in PRICES)
    regions = ", ".join(sorted({name for prices in PRICES.values() for name in prices}))
    raise SettingsError(
        f"The price of {instance_type} in {region} is unknown. Known: the families {families} in {regions}. "
        "Give that of a worker node, from https://calculator.aws: fruits cluster cost --worker-price DOLLARS."
    )
