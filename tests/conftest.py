"""Set-up of all tests: one thread per library, separate caches, and the real images if available."""

from __future__ import annotations

import os
import re
import shutil
import signal
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
SHARED = re.compile(r"tests/conformance/test_(executors|frames|native)\.py")
LONG = "FRUITS_LONG" in os.environ  # set by `make test-hostile` and `make test-peers`
THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
)

# Set before numpy and TensorFlow are imported, which read them on import.
os.environ.update(dict.fromkeys(THREADS, "1"))
# Python replaces the locale C by one with UTF-8, unless it is set so; Java then opens no file with letters like é.
if os.environ.get("LC_ALL") in ("C", "POSIX"):
    os.environ["LC_ALL"] = "C.UTF-8"


def pytest_configure(config: pytest.Config) -> None:
    """Give the tests and their processes a persistent cache folder, separate from the user's."""
    # A shell without job control starts background processes with Ctrl-C ignored, and children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)

    # Imported here, so that none of their modules is imported before the variables above are set.
    from hypothesis import HealthCheck, settings
    from platformdirs import user_cache_path

    users, tests = user_cache_path(), config.cache.mkdir("home") if config.cache else None
    if tests is not None:
        if (users / "fruits").is_dir() and not (tests / "fruits").exists():
            shutil.copytree(users / "fruits", tests / "fruits")
        os.environ.setdefault("UV_CACHE_DIR", str(users / "uv"))  # the packages that `make` has downloaded
        os.environ["XDG_CACHE_HOME"] = str(tests)
        os.environ["KERAS_HOME"] = str(tests / "keras")

    # Timings vary on a shared machine.
    settings.register_profile("fruits", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.register_profile("ci", settings.get_profile("fruits"), derandomize=True, print_blob=True)
    settings.load_profile("ci" if "CI" in os.environ else "fruits")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: Any, log: Any) -> Any:
    """Run a file in one process, and the files that share the executors of tests/conformance in the same one."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return SHARED.sub("executor", super()._split_scope(nodeid))

    return Scheduling(config, log) if config.option.dist == "loadfile" else None


def real_images() -> Path | None:
    """Return the folder of FRUITS360, or ``../shared/fruits360``, if it contains ``Training``."""
    folder = Path(os.environ.get("FRUITS360") or ROOT.parent / "shared" / "fruits360")
    return folder if (folder / "Training").is_dir() else None


@pytest.fixture(scope="session")
def fruits360() -> Path:
    """Return the folder of the real images, with ``Training`` and ``Test``: FRUITS360, or a default."""
    folder = real_images()
    if folder is None:
        pytest.skip("no real images. Set FRUITS360 to the folder with Training and Test.")
    return folder


@cache
def _eigh(data: bytes, size: int) -> Any:
    import numpy as np

    values, vectors = np.linalg.eigh(np.frombuffer(data).reshape(size, size))
    return values, np.ascontiguousarray(vectors)


@pytest.fixture(scope="module")
def solver_in_this_process() -> Iterator[None]:
    """Compute eigenvectors in this process, once for each matrix: a subprocess takes 0.2 s of each of many jobs."""
    from fruits.model import solver
    from fruits.recogniser.training import discriminant

    with pytest.MonkeyPatch.context() as patch:
        for module in (solver, discriminant):
            patch.setattr(module, "eigh", lambda matrix: _eigh(matrix.tobytes(), len(matrix)))
        yield
