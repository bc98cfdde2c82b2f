"""An archive of the Python that runs the tests, laid out as a standalone build: ``python/bin/python3.11``."""

from __future__ import annotations

import sys
import tarfile
from pathlib import Path

__all__ = ["python_archive"]

LEFT_OUT = {"test", "idlelib", "tkinter", "turtledemo", "ensurepip", "site-packages", "__pycache__", "config"}


def python_archive(folder: Path) -> Path:
    """Write ``python.tar.gz`` to a folder. It runs where its interpreter was built; a standalone one runs anywhere."""
    folder.mkdir(parents=True, exist_ok=True)
    home, name = Path(sys.base_prefix), f"python{sys.version_info.major}.{sys.version_info.minor}"
    archive = folder / "python.tar.gz"

    def kept(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        skipped = LEFT_OUT & set(Path(member.name).parts) or member.name.endswith((".a", ".pyc"))
        return None if skipped else member

    with tarfile.open(archive, "w:gz", compresslevel=1) as packed:
        packed.add(home / "bin" / name, f"python/bin/{name}")
        packed.add(home / "lib" / name, f"python/lib/{name}", filter=kept)
        for library in (home / "lib").glob("libpython*"):
            packed.add(library, f"python/lib/{library.name}", filter=kept)
    return archive
