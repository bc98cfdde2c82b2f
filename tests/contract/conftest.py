"""Fixtures of the contract tests: the files of the project."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def project_files() -> list[Path]:
    """Return every file tracked by git, or untracked and not ignored, relative to the project's folder."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.fail(f"the contract tests need a git checkout: {done.stderr.strip()}")
    return [Path(name) for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]
