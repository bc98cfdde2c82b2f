"""Eigenvectors with the same bits on every x86-64 CPU with AVX2 and in every process.

The kernel that OpenBLAS chooses for the CPU, and the number of threads, which is a setting of the whole process, change
the order of additions and so the last bits. Both are fixed in a subprocess, which imports numpy alone. On a CPU that
cannot execute the fixed kernel, OpenBLAS chooses one; :mod:`fruits.model.fingerprint` shows the difference.
"""

import os
import signal
import subprocess
import sys

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]

PINNED = {  # other architectures ignore it
    "OPENBLAS_CORETYPE": "Haswell",  # needs AVX2
    "MKL_CBWR": "COMPATIBLE",  # for a numpy with MKL
}
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def eigh(matrix: Float64) -> tuple[Float64, Float64]:
    """Return the eigenvalues, ascending, and the eigenvectors, one per column, of a symmetric matrix.

    Raises
    ------
    JobError
        The subprocess failed, for example because memory is exhausted.
    """
    from fruits.errors import JobError
    from fruits.machine.subprocesses import python_environment

    size = len(matrix)
    data = np.ascontiguousarray(matrix, np.float64).tobytes()

    def run(settings: dict[str, str]) -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, __file__, str(size)]
        return subprocess.run(command, input=data, env=python_environment() | settings, capture_output=True)

    done = run(ONE_THREAD | PINNED)
    if done.returncode == -signal.SIGILL:  # a CPU without AVX2
        done = run(ONE_THREAD)
    if done.returncode != 0 or len(done.stdout) != 8 * size * (size + 1):
        detail = (done.stderr.decode("utf-8", "replace").strip().splitlines() or ["no message"])[-1]
        raise JobError(
            f"the subprocess that solves the model, with numpy {np.__version__}, ended with exit code "
            f"{done.returncode}: {detail}. Completed work is kept: run the same command again to resume."
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
