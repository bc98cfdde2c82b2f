"""Eigenvectors with the same bits on every x86-64 CPU and in every process.

The kernel that OpenBLAS chooses for the CPU, and the number of threads, which is a setting of the whole process, change
the order of additions and so the last bits. Both are fixed in a subprocess, which imports numpy alone.
"""

import os
import subprocess
import sys

import numpy as np
import numpy.typing as npt

__all__ = ["eigh"]

Float64 = npt.NDArray[np.float64]

ENVIRONMENT = {
    "OPENBLAS_CORETYPE": "Haswell",  # needs AVX2; other architectures ignore it
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "MKL_CBWR": "COMPATIBLE",  # the same for a numpy with MKL
}


def eigh(matrix: Float64) -> tuple[Float64, Float64]:
    """Return the eigenvalues, ascending, and the eigenvectors, one per column, of a symmetric matrix.

    Raises
    ------
    JobError
        The subprocess failed, for example because memory is exhausted.
    """
    from fruits.errors import JobError
    from fruits.subprocesses import python_environment

    size = len(matrix)
    done = subprocess.run(
        [sys.executable, "-P", __file__, str(size)],
        input=np.ascontiguousarray(matrix, np.float64).tobytes(),
        env=python_environment() | ENVIRONMENT,
        capture_output=True,
    )
    if done.returncode != 0 or len(done.stdout) != 8 * size * (size + 1):
        detail = (done.stderr.decode("utf-8", "replace").strip().splitlines() or ["no message"])[-1]
        raise JobError(
            f"the subprocess that solves the model ended with exit code {done.returncode}: {detail}. Completed work is "
            "kept: run the same command again to resume."
        )
    result = np.frombuffer(done.stdout, np.float64)
    return result[:size], result[size:].reshape(size, size)


def main(size: int) -> None:
    """Solve the matrix on standard input, in the subprocess."""
    values, vectors = np.linalg.eigh(np.frombuffer(sys.stdin.buffer.read(), np.float64).reshape(size, size))
    with os.fdopen(1, "wb") as output:
        output.write(values.tobytes())
        output.write(np.ascontiguousarray(vectors).tobytes())


if __name__ == "__main__":
    main(int(sys.argv[1]))
