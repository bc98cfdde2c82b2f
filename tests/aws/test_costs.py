"""The cost estimate follows from the number of images, the nodes and the prices."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest

from backends.aws import cli
from backends.aws.costs import (
    EC2_START_MINUTES,
    EMR_START_MINUTES,
    IMAGES_PER_SECOND,
    PRICES,
    SERVERLESS_START_MINUTES,
    cost,
)
from backends.aws.instance_types import vcpus
from fruits.clusters.clouds import DaskEc2Cluster, EmrCluster, EmrServerlessCluster
from fruits.clusters.cluster_file import BUILT_IN
from fruits.errors import SettingsError


def emr(**settings: Any) -> EmrCluster:
    return EmrCluster(backend="spark", cloud="emr", **settings)


def test_the_estimate_equals_a_manual_calculation() -> None:
    # 5 nodes of 16 vCPUs are 40 cores; at 100 images/s each, 2,400,000 images take 10 minutes after the start.
    settings = emr(spot=False, worker_types=["c7i.4xlarge"], task_nodes=4)
    found = cost(settings, 2_400_000, region="us-east-1", images_per_second=100)
    hours = (EMR_START_MINUTES + 10) / 60
    assert (found.vcpus, found.minutes) == (80, EMR_START_MINUTES + 10)
    assert found.vcpu_hours == pytest.approx(80 * hours, abs=0.05)
    node, master = 0.714 * 1.25, 0.4032 / 2 * 1.25
    assert found.dollars == pytest.approx((5 * node + master) * hours, abs=0.005)


def test_dask_on_ec2_has_no_fee_and_only_spot_workers() -> None:
    # 4 machines of 16 vCPUs are 32 cores; at 100 images/s each, 1,920,000 images take 10 minutes after the start.
    settings = DaskEc2Cluster(
        backend="dask", cloud="dask-ec2", scheduler_type="m7i.large", worker_type="c7i.4xlarge", worker_nodes=4
    )
    found = cost(settings, 1_920_000, region="us-east-1", images_per_second=100)
    hours = (EC2_START_MINUTES + 10) / 60
    assert (found.workers, found.vcpus, found.minutes) == ("4 c7i.4xlarge", 64, EC2_START_MINUTES + 10)
    assert found.dollars == pytest.approx((4 * 0.3173 + 0.4032 / 4) * hours, abs=0.005)


def test_serverless_is_paid_by_vcpus_and_memory() -> None:
    # 16 vCPUs are a driver and three workers of 4, which are 6 cores; at 100 images/s each, 360,000 take 10 minutes.
    settings = EmrServerlessCluster(backend="spark", cloud="emr-serverless")
    found = cost(settings, 360_000, region="us-east-1", images_per_second=100)
    hours = (SERVERLESS_START_MINUTES + 10) / 60
    assert (found.workers, found.vcpus, found.minutes) == ("3 workers of 4 vCPUs", 12, SERVERLESS_START_MINUTES + 10)
    assert found.dollars == pytest.approx((16 * 0.052624 + 32 * 0.0057785) * hours, abs=0.005)


def test_a_master_node_alone_is_paid_once() -> None:
    found = cost(emr(master_type="c7i.xlarge", core_nodes=0, task_nodes=0), 1, region="us-east-1")
    assert found.dollars == pytest.approx(0.714 / 4 * 1.25 * EMR_START_MINUTES / 60, abs=0.005)
    assert (found.workers, found.vcpus) == ("1 c7i.xlarge", 4)


def test_the_speed_of_a_core_is_half_of_the_documented_speed_of_spark_on_two_cores() -> None:
    page = (Path(__file__).parents[2] / "docs" / "performance.md").read_text("utf-8")
    (measured,) = re.findall(r"\| the same, Spark \| (\d+) images/s", page)
    assert int(measured) / 2 == IMAGES_PER_SECOND


def test_spot_is_cheaper_and_more_nodes_are_faster() -> None:
    for region in PRICES["c7i.4xlarge"]:
        assert cost(emr(), 10**6, region=region).dollars < cost(emr(), 10**6, region=region, spot=False).dollars
    assert cost(emr(task_nodes=20), 10**8, region="eu-west-3").minutes < cost(emr(), 10**8, region="eu-west-3").minutes


@pytest.mark.parametrize(
    ("name", "count"), [("c7i.large", 2), ("c7i.xlarge", 4), ("c7i.4xlarge", 16), ("c7i.48xlarge", 192)]
)
def test_the_instance_size_determines_the_vcpus(name: str, count: int) -> None:
    assert vcpus(name) == count


@pytest.mark.parametrize("name", [name for name, entry in BUILT_IN.clusters.items() if hasattr(entry, "cloud")])
def test_each_shipped_cluster_and_that_of_a_new_account_has_a_price(name: str) -> None:
    settings: Any = BUILT_IN.clusters[name]
    for region in PRICES["m5.4xlarge"]:
        assert cost(settings, 1000, region=region).dollars > 0
        alone = emr(
            master_type="m7i.xlarge", core_nodes=0, task_nodes=0
        )  # docs/aws.md, for the quotas of a new account
        assert cost(alone, 1000, region=region).workers == "1 m7i.xlarge"


def test_a_price_that_is_given_counts_for_all_nodes_by_their_vcpus() -> None:
    # A core node of 4 vCPUs for 0.8 dollars, a master node of 2, and a fee of a quarter of both.
    settings = emr(worker_types=["g5.xlarge"], master_type="c7i.large", task_nodes=0)
    found = cost(settings, 1, region="mars-1", worker_price=0.8)
    assert found.dollars == pytest.approx((0.8 + 0.4) * 1.25 * EMR_START_MINUTES / 60, abs=0.005)
    answer: Any = cli.call(["cost", "--images", "1", "--region", "mars-1", "--worker-price", "0.8"])
    assert answer.values["dollars"] == answer.values["dollars_without_spot"] > 0
    serverless = EmrServerlessCluster(backend="spark", cloud="emr-serverless")
    with pytest.raises(SettingsError, match="--worker-price: not allowed on EMR Serverless"):
        cost(serverless, 1, region="us-east-1", worker_price=0.8)


def test_unknown_prices_and_sizes_are_rejected() -> None:
    with pytest.raises(
        SettingsError,
        match=r"The price of c7i.2xlarge in mars-1 is unknown\. Known: the families c7i, m5, m7i in ca-.*, us-west-2\. "
        r"Give that of a worker node, .*: fruits cluster cost --worker-price DOLLARS",
    ):
        cost(emr(), 1, region="mars-1")
    with pytest.raises(SettingsError, match="metal: unknown size"):
        vcpus("c7i.metal")
    with pytest.raises(SettingsError, match="--images 0"):
        cost(emr(), 0, region="us-east-1")
    for speed in (0, math.nan, math.inf):
        with pytest.raises(SettingsError, match=f"--images-per-second {speed:g}: not allowed"):
            cost(emr(), 1, region="us-east-1", images_per_second=speed)
    for price in (-1, math.nan, math.inf):
        with pytest.raises(SettingsError, match=f"--worker-price {price:g}: not allowed"):
            cost(emr(), 1, region="us-east-1", worker_price=price)
