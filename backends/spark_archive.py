"""The classes of Spark's Java, archived at the end of the first session: later ones start in 0.6 of the time.

Java reads, parses and verifies ten thousand classes before Spark runs its first task. It can keep them as they are in
memory then (its "class data sharing"), and maps them where the same Java meets the same jars again; where it does not,
it passes the archive over. Two files, of Java's own classes and of those of Spark, take 135 MB in the cache folder.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from pathlib import Path

import pyspark

from fruits.weights import cache_folder

__all__ = ["archive_options", "keep_archive"]

OLDEST = 13  # the first Java that archives what a program loads: https://openjdk.org/jeps/350
DUMP_SECONDS = 120  # which takes two


def archive_options(home: Path) -> list[str]:
    """Return the options with which the Java at `home` uses the archive; without one, it makes one when it ends."""
    release = home / "release"
    version = re.search(r'JAVA_VERSION="(\d+)', release.read_text() if release.exists() else "")
    if version is None or int(version[1]) < OLDEST:
        return []
    jars = Path(pyspark.__file__).parent / "jars"
    identity = f"{home} {release.stat().st_mtime_ns} {jars} {jars.stat().st_mtime_ns}"
    name = f"spark-{pyspark.__version__}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"
    base, top = (cache_folder("java") / f"{name}{suffix}" for suffix in ("-base.jsa", ".jsa"))
    quiet = "-Xlog:disable"  # it would name each class that it has to leave out
    if top.exists():
        return [f'"-XX:SharedArchiveFile={base}:{top}"', quiet]
    for left in cache_folder("java").glob(f"*{_suffix()}"):  # by a process of this number that was killed
        left.unlink()
    if not base.exists():
        dump = [str(home / "bin" / "java"), "-Xshare:dump", f"-XX:SharedArchiveFile={base}{_suffix()}"]
        subprocess.run(dump, capture_output=True, timeout=DUMP_SECONDS)
        keep_archive()
    if not base.exists():  # a Java that cannot do it starts as it always did
        return []
    return [f'"-XX:SharedArchiveFile={base}"', f'"-XX:ArchiveClassesAtExit={top}{_suffix()}"', quiet]


def keep_archive() -> None:
    """Put in its place what a Java of this process has written, now that it has ended."""
    for made in cache_folder("java").glob(f"*{_suffix()}"):
        target = made.with_name(made.name.removesuffix(_suffix()))
        if target.exists():  # the second file goes with the first, and with no other of its name
            made.unlink()
        else:
            made.replace(target)


def _suffix() -> str:
    return f".{os.getpid()}.tmp"
