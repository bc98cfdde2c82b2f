"""Whole jobs with the kernels and instruction sets of other CPUs: the same bits, or another fingerprint."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fruits.images.sample import generate
from fruits.jobs.inspect.compare import compare
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
    generate(tmp_path / "images", images=120, labels=5)
    outs = []
    for kernel in usable_kernels():
        outs.append(str(tmp_path / kernel))
        job = ["run", str(tmp_path / "images"), "--out", outs[-1], "--components", "40", "--partition-size", "48"]
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
