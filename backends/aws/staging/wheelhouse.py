"""The wheels of a node: those that ``requirements.txt`` of this package pins by their hashes, and that of Fruits."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from hashlib import sha256
from importlib.metadata import distribution, version
from importlib.resources import files
from pathlib import Path

from backends.aws.emr.livy import PTH
from backends.aws.emr.releases import Release
from fruits.errors import SettingsError

STAGING = files("backends.aws.staging")
REQUIREMENTS = "requirements.txt"
PIP_SECONDS = 1800
# The oldest glibc of a manylinux tag is 2.5: https://peps.python.org/pep-0600/
OLDEST_GLIBC = 5
LEGACY = ("manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64", "linux_x86_64")
WHEEL = "Wheel-Version: 1.0\nGenerator: fruits\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
EPOCH = (1980, 1, 1, 0, 0, 0)  # of every file in a wheel, so that its hash depends on the content alone


def gather(folder: Path, release: Release) -> None:
    """Write the wheels for a release, and ``requirements.txt``, to a new folder.

    Raises
    ------
    SettingsError
        A wheel cannot be downloaded; the message has the output of pip.
    """
    folder.mkdir(parents=True)
    pinned = (STAGING / release.requirements).read_text(encoding="utf-8")
    requirements = folder / REQUIREMENTS
    requirements.write_text(pinned, encoding="utf-8")
    hashed = ("--no-deps", "--require-hashes", "--requirement", str(requirements))
    _pip("download", "--dest", str(folder), *_target(release), *hashed)
    own = _own_wheel(folder)
    line = f"fruits=={version('fruits')} --hash=sha256:{digest_of(own)}\n"
    requirements.write_text(pinned.rstrip("\n") + "\n" + line, encoding="utf-8")


def build_environment(archive: Path, wheelhouse: Path, release: Release, target: Path) -> None:
    """Write a Python build with the wheels of a wheelhouse in it, for ``spark.archives``.

    A standalone build of Python finds its files relative to its executable, so the archive can be unpacked anywhere.

    Parameters
    ----------
    archive : Path
        A ``.tar.gz`` with ``python/bin/python3.11`` in it.
    wheelhouse : Path
        From :func:`gather`.
    release : Release
    target : Path
        The new ``.tar.gz``, with ``bin/python3.11`` in it.
    """
    unpacked = target.parent / "environment"
    with tarfile.open(archive) as packed:
        packed.extractall(unpacked, filter="data")
    home = unpacked / "python"
    if not (home / "bin" / f"python{release.python}").exists():
        raise SettingsError(f"{archive}: has no python/bin/python{release.python}. Give a standalone build of it.")
    packages = home / "lib" / f"python{release.python}" / "site-packages"
    hashed = ("--no-deps", "--require-hashes", "--requirement", str(wheelhouse / REQUIREMENTS), "--no-index")
    _pip("install", "--target", str(packages), "--upgrade", *_target(release), *hashed, wheels=wheelhouse)
    with tarfile.open(target, "w:gz", compresslevel=1) as packed:
        for path in sorted(home.iterdir()):
            packed.add(path, path.name)
    shutil.rmtree(unpacked)


def package_files() -> Iterator[tuple[str, Path]]:
    """Yield the name in the wheel and the path of every file of the installed packages."""
    for package in ("fruits", "backends"):
        root = Path(str(files(package)))
        for path in sorted(root.rglob("*")):
            if path.is_file() and path.suffix != ".pyc":
                yield f"{package}/{path.relative_to(root).as_posix()}", path


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    return sha256(path.read_bytes()).hexdigest()


def _own_wheel(folder: Path) -> Path:
    """Write the wheel of the installed Fruits; one from an index could be of anyone."""
    installed = distribution("fruits")
    info = f"fruits-{installed.version}.dist-info"
    content = {name: path.read_bytes() for name, path in package_files()}
    for name in ("METADATA", "entry_points.txt"):
        content[f"{info}/{name}"] = (installed.read_text(name) or "").encode()
    content |= {f"{info}/WHEEL": WHEEL.encode(), "fruits_livy.pth": PTH.encode()}
    record = "".join(
        f"{name},sha256={urlsafe_b64encode(sha256(data).digest()).rstrip(b'=').decode()},{len(data)}\n"
        for name, data in content.items()
    )
    content[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    path = folder / f"fruits-{installed.version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, data in content.items():
            wheel.writestr(zipfile.ZipInfo(name, EPOCH), data, zipfile.ZIP_DEFLATED)
    return path


def _target(release: Release) -> list[str]:
    """Return the options of pip that select wheels for a release."""
    short = release.python.replace(".", "")
    platforms = [f"manylinux_2_{minor}_x86_64" for minor in range(release.glibc[1], OLDEST_GLIBC - 1, -1)]
    target = [argument for platform in (*platforms, *LEGACY) for argument in ("--platform", platform)]
    target += ["--python-version", release.python, "--implementation", "cp", "--only-binary", ":all:"]
    return target + [argument for abi in (f"cp{short}", "abi3", "none") for argument in ("--abi", abi)]


def _pip(*arguments: str, wheels: Path | None = None) -> None:
    command = [sys.executable, "-P", "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    environ = os.environ | ({} if wheels is None else {"PIP_FIND_LINKS": str(wheels)})
    done = subprocess.run(command, capture_output=True, text=True, timeout=PIP_SECONDS, env=environ)
    if done.returncode != 0:
        raise SettingsError(
            f"pip {arguments[0]} failed for the wheels of the nodes:\n{done.stderr.strip()[-2000:]}\n"
            "Check that the package index in pip's configuration is reachable."
        )
