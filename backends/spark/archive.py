"""The classes of Spark's Java, archived by the first session that works: later ones start in 0.6 of the time.

Java reads, parses and verifies ten thousand classes before Spark runs its first task. It can keep them as they are in
memory then (its "class data sharing"), and maps them where the same Java meets the same jars again; where it does not,
it passes the archive over. Two files, of Java's own classes and of those of Spark, take 135 MB in the cache folder.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pyspark

from fruits.network.weights import cache_folder

__all__ = ["archive_options", "end_archive"]

OLDEST = 13  # the first Java that archives what a program loads: https://openjdk.org/jeps/350
DUMP_SECONDS = 120  # which takes two
LEFT_SECONDS = 3_600  # after which what somebody began is no longer being written


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
    for left in cache_folder("java").glob("*.tmp"):  # by a process that was killed
        with suppress(FileNotFoundError):
            if left.name.endswith(_suffix()) or time.time() - left.stat().st_mtime > LEFT_SECONDS:
                left.unlink()
    if not base.exists():
        dump = [str(home / "bin" / "java"), "-Xshare:dump", f"-XX:SharedArchiveFile={base}{_suffix()}"]
        subprocess.run(dump, capture_output=True, timeout=DUMP_SECONDS)
        end_archive(keep=True)
    if not base.exists():  # a Java that cannot do it starts as it always did
        return []
    return [f'"-XX:SharedArchiveFile={base}"', f'"-XX:ArchiveClassesAtExit={top}{_suffix()}"', quiet]


def end_archive(*, keep: bool) -> None:
    """Put in its place, or remove, what a Java of this process has written, now that it has ended.

    Parameters
    ----------
    keep : bool
        Whether it is whole, and of a session that worked: the classes that an idle one loads are a third of them.
    """
    for made in cache_folder("java").glob(f"*{_suffix()}"):
        target = made.with_name(made.name.removesuffix(_suffix()))
        if keep and not target.exists():  # the second file goes with the first, and with no other of its name
            made.replace(target)
        else:
            made.unlink()


def _suffix() -> str:
    return f".{os.getpid()}.tmp"
