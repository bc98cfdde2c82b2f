"""Moments, model and scores of enough rows that OpenBLAS' kernels differ, in a process for each kernel."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cpus import usable_kernels

PROGRAM = """
import hashlib, itertools, sys
import numpy as np
from fruits.model.exact.product import product
from fruits.model.moments import Moments
from fruits.model.solver import solve

def digest(*values):
    return hashlib.sha256(b"".join(map(bytes, values))).hexdigest()

rows, size = map(int, sys.argv[1:])
rng = np.random.default_rng(0)
factors = rng.integers(-9, 9, (rows, 40)).repeat(32, axis=1)  # sums without BLAS, which differs by kernel
features = np.clip(factors / 7 + rng.standard_normal((rows, 1280)), 0, 6).astype(np.float32)
labels = [f"class {row // 100}" for row in range(rows)]
cuts = range(0, rows, size)
moments = Moments.sum_all(Moments.from_features(features[a : a + size], labels[a : a + size]) for a in cuts)
model = solve(moments, 200)
scaled, scores = map(np.concatenate, zip(*(model.transform(features[a : a + size]) for a in cuts)))
print(digest(moments.to_bytes()), digest(moments.covariance()), model.digest(), digest(scaled, scores))
print(digest(np.linalg.eigh(moments.correlation())[1], features.T.astype(float) @ features))
"""


def run(kernel, rows, size):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(rows), str(size)],
        env=os.environ | {"OPENBLAS_CORETYPE": kernel, "PYTHONPATH": str(Path(__file__).parents[3])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.skipif(not usable_kernels(), reason="not an x86-64 CPU with AVX2 on Linux")
def test_every_kernel_and_every_cut_give_the_same_bits():
    rows = 2500
    kernels = usable_kernels()
    cuts = [1024, 500, rows]
    answers = [run(kernel, rows, size) for kernel, size in zip(kernels, cuts, strict=False)]
    exact, plain = zip(*answers, strict=True)
    assert len(set(exact)) == 1
    if "SkylakeX" in kernels:
        assert len(set(plain)) > 1  # the kernels were indeed different
