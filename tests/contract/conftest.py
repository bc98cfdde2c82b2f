"""What the contracts are held against: the files that belong to the project."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def project_files() -> list[Path]:
    """Return every file that git keeps, or would keep once it is added; relative to the project's folder."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.fail(f"the contracts are read from a git checkout: {done.stderr.strip()}")
    return [Path(name) for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]
