"""What every test stands on: pinned threads, caches of their own, and the real images where they are present."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
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

# Read when numpy and TensorFlow are first imported: by the tests' modules, after this one.
os.environ.update(dict.fromkeys(THREADS, "1"))


def pytest_configure(config: pytest.Config) -> None:
    """Give the tests and their processes a cache folder that lasts from run to run; the user's is only read."""
    # A shell without job control starts what it puts into the background with Ctrl-C ignored, and so would we.
    signal.signal(signal.SIGINT, signal.default_int_handler)

    # platformdirs and hypothesis are imported here, so that no module of theirs precedes the threads above.
    from hypothesis import settings
    from platformdirs import user_cache_path

    users, tests = user_cache_path(), config.cache.mkdir("home") if config.cache else None
    if tests is not None:
        if (users / "fruits").is_dir() and not (tests / "fruits").exists():
            shutil.copytree(users / "fruits", tests / "fruits")
        os.environ.setdefault("UV_CACHE_DIR", str(users / "uv"))  # the installer's own: what `make` has fetched
        os.environ["XDG_CACHE_HOME"] = str(tests)
        os.environ["KERAS_HOME"] = str(tests / "keras")

    settings.register_profile("fruits", deadline=None)  # the machine may be shared
    settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
    settings.load_profile("ci" if "CI" in os.environ else "fruits")


@pytest.fixture(scope="session")
def fruits360() -> Path:
    """Return the folder of the real images, with ``Training`` and ``Test``; FRUITS360 says where else it is."""
    folder = Path(os.environ.get("FRUITS360") or ROOT.parent / "shared" / "fruits360")
    if not (folder / "Training").is_dir():
        pytest.skip(
            f"no real images: {folder}/Training is not there; set FRUITS360 to the folder that holds Training and Test"
        )
    return folder
