"""Whole jobs with the kernels and instruction sets of other CPUs: the same bits, or another fingerprint."""

import dataclasses
import os
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from distributed import Client

from backends.dask.executor import DaskExecutor
from backends.local import LocalExecutor
from fruits.errors import SettingsError
from fruits.images.sample import generate
from fruits.jobs import pipeline
from fruits.jobs.inspect.compare import compare
from fruits.jobs.job import Job
from tests.cpus import environment, usable_kernels
from tests.outputs import contents

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(not usable_kernels(), reason="not an x86-64 CPU with AVX2 on Linux")


def run(command, **settings):
    done = subprocess.run(
        [sys.executable, *command],
        env=os.environ | {"PYTHONPATH": str(ROOT)} | settings,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_whole_jobs_give_the_same_bits_on_every_cpu(tmp_path):
    generate(tmp_path / "images", images=60, labels=5)
    outs = []
    for kernel in usable_kernels():
        outs.append(str(tmp_path / kernel))
        job = ["run", str(tmp_path / "images"), "--out", outs[-1], "--components", "40", "--partition-size", "24"]
        run(["-m", "fruits", *job, "--backend", "local", "--workers", "1"], **environment(kernel))
    for out in outs[1:]:
        found = compare(outs[0], out)
        assert found.identical, found.differences
        assert contents(out) == contents(outs[0])


FINGERPRINTS = """
from fruits.model.fingerprint import numeric_fingerprint, solver_fingerprint
from fruits.network.featurizer import compile_network
print(numeric_fingerprint(compile_network("MobileNetV2").load()), solver_fingerprint())
"""


def test_fingerprints_are_equal_with_avx2_and_avx512_and_differ_without_both():
    numeric, solver = zip(
        *(run(["-c", FINGERPRINTS], **environment(kernel)).split() for kernel in usable_kernels()), strict=True
    )
    assert len(set(numeric)) == len(set(solver)) == 1
    other, same = run(["-c", FINGERPRINTS], ONEDNN_MAX_CPU_ISA="SSE41").split()
    assert other != numeric[0]
    assert same == solver[0]


@contextmanager
def dask_workers(folder, *environments):
    """Start a scheduler and a worker for each environment, and yield the address of the scheduler."""
    file = folder / "scheduler.json"
    with ExitStack() as stack:

        def start(*command, **settings):
            process = subprocess.Popen(
                [sys.executable, "-m", "distributed.cli." + command[0], "--scheduler-file", str(file), *command[1:]],
                env=os.environ | {"PYTHONPATH": str(ROOT)} | settings,
                stderr=subprocess.DEVNULL,
            )
            stack.callback(process.wait)
            stack.callback(process.terminate)

        start("dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard")
        for number, settings in enumerate(environments):
            options = ("--nthreads", "1", "--no-nanny", "--no-dashboard", "--name", str(number))
            start("dask_worker", "--host", "127.0.0.1", *options, **settings)
        with Client(scheduler_file=str(file), timeout=60) as client:
            client.wait_for_workers(len(environments), timeout=60)
            yield client.scheduler.address


def test_workers_with_different_cpus_share_a_job(tmp_path):
    generate(tmp_path / "images", images=30, labels=5)
    job = Job(images=str(tmp_path / "images"), out=str(tmp_path / "mixed"), components=20, partition_size=3)
    with (
        dask_workers(tmp_path, *map(environment, usable_kernels())) as address,
        DaskExecutor(address=address) as executor,
    ):
        pipeline.run(job, executor)
    alone = dataclasses.replace(job, out=str(tmp_path / "alone"), partition_size=None)
    pipeline.run(alone, LocalExecutor(workers=1))
    found = compare(job.out, alone.out)
    assert found.identical, found.differences
    assert found.rows == 30


def test_a_worker_that_computes_other_features_fails_the_job(tmp_path):
    generate(tmp_path / "images", images=20, labels=2)
    job = Job(images=str(tmp_path / "images"), out=str(tmp_path / "out"), components=5, partition_size=2)
    with (
        dask_workers(tmp_path, {}, {"ONEDNN_MAX_CPU_ISA": "SSE41"}) as address,
        DaskExecutor(address=address) as executor,
        pytest.raises(SettingsError, match="computes other features than the one that started the job"),
    ):
        pipeline.run(job, executor)
