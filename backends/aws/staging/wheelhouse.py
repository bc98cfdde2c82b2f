"""Everything that a node needs, in the bucket: ``fruits cluster stage``.

Our wheel, and for the cluster's Python and glibc the wheels that ``requirements.txt`` of this package pins by their
hashes; the scripts; the weights of networks that do not ship with Fruits. Nodes need no package index and no internet
access.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from importlib.metadata import Distribution, distribution, version
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from backends.aws.account.clients import Account, explained, split_address
from backends.aws.emr.releases import Release
from backends.aws.staging.staged import StagedFiles
from fruits.errors import JobError, SettingsError
from fruits.network.backbones import backbone
from fruits.network.packaged import PACKAGED
from fruits.network.weights import find_weights

__all__ = ["NOTEBOOK", "REQUIREMENTS", "gather", "is_staged", "offer_notebook", "stage"]

AWS = files("backends.aws")
REQUIREMENTS = "requirements.txt"
NOTEBOOK = "feature_extraction.ipynb"
# Where JupyterHub on EMR keeps the notebooks of its first user:
# https://docs.aws.amazon.com/emr/latest/ReleaseGuide/emr-jupyterhub-s3.html
NOTEBOOKS = "jupyter/jovyan"
PIP_SECONDS = 1800
# The oldest glibc of a manylinux tag is 2.5: https://peps.python.org/pep-0600/
OLDEST_GLIBC = 5
LEGACY = ("manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64", "linux_x86_64")


def stage(
    account: Account,
    bucket: str,
    release: Release,
    *,
    backbones: Sequence[str] = (),
    tell: Callable[[str], None] = lambda words: None,
) -> StagedFiles:
    """Put into a bucket what the nodes of a cluster need, and return where it is.

    What is there already, by its hash, is left as it is.

    Parameters
    ----------
    account : Account
    bucket : str
        Without ``s3://``.
    release : Release
        Whose Python and glibc the wheels are for.
    backbones : sequence of str
        The networks that the nodes build; `PACKAGED` is part of the wheel and needs no weights.
    tell : callable
        Is told what happens, in words.

    Raises
    ------
    SettingsError
        No wheel of this package can be made, or a package has no wheel for the cluster.
    """
    if release.python is None:
        raise SettingsError("This release has no Python that Fruits runs on: nothing can be staged for it.")
    staged = StagedFiles.of(bucket, release.python)
    with tempfile.TemporaryDirectory(prefix="fruits-stage-") as temporary:
        folder = Path(temporary)
        tell(f"gathering wheels for Python {release.python} and glibc {'.'.join(map(str, release.glibc))}")
        gather(folder / "wheelhouse", release)
        for name in ("bootstrap_emr.sh", "emr_step.py"):
            (folder / name).write_bytes((AWS / "emr" / name).read_bytes())
        digests = {}
        (folder / "weights").mkdir()
        for name in sorted(_unpackaged(backbones)):
            found = find_weights(backbone(name))
            shutil.copy(found.path, folder / "weights" / f"{name}.safetensors")
            digests[name] = found.digest
        manifest = {
            "version": version("fruits"),
            "sources": _sources(),
            "weights": digests,
            "files": {path.relative_to(folder).as_posix(): _digest(path) for path in _under(folder)},
        }
        _upload(account, folder, staged, manifest, tell)
    return staged


def is_staged(account: Account, staged: StagedFiles, backbones: Sequence[str] = ()) -> bool:
    """Tell whether a bucket holds what was staged last from the very sources that run here, with those weights."""
    manifest = _manifest(account, staged)
    return manifest.get("sources") == _sources() and _unpackaged(backbones) <= set(manifest.get("weights", {}))


def _unpackaged(backbones: Sequence[str]) -> set[str]:
    return set(backbones) - {PACKAGED}


def offer_notebook(account: Account, bucket: str) -> str:
    """Put the notebook where JupyterHub finds it, unless one is there, and return its address."""
    s3 = account.client("s3")
    key = f"{NOTEBOOKS}/{NOTEBOOK}"
    with explained(f"upload the notebook to s3://{bucket}"):
        if not s3.list_objects_v2(Bucket=bucket, Prefix=key)["KeyCount"]:
            s3.put_object(Bucket=bucket, Key=key, Body=(AWS / "emr" / NOTEBOOK).read_bytes())
    return f"s3://{bucket}/{key}"


def gather(folder: Path, release: Release) -> None:
    """Put wheels and ``requirements.txt`` into a new folder, for a release's Python and glibc.

    Raises
    ------
    SettingsError
        A wheel cannot be made, or there is none for the cluster; says what pip said.
    """
    folder.mkdir(parents=True)
    pinned = (AWS / "staging" / REQUIREMENTS).read_text(encoding="utf-8")
    requirements = folder / REQUIREMENTS
    requirements.write_text(pinned, encoding="utf-8")
    short = str(release.python).replace(".", "")
    platforms = [f"manylinux_2_{minor}_x86_64" for minor in range(release.glibc[1], OLDEST_GLIBC - 1, -1)]
    target = [word for platform in (*platforms, *LEGACY) for word in ("--platform", platform)]
    target += ["--python-version", str(release.python), "--implementation", "cp"]
    target += [word for abi in (f"cp{short}", "abi3", "none") for word in ("--abi", abi)]
    hashed = ("--no-deps", "--only-binary", ":all:", "--require-hashes", "--requirement", str(requirements))
    _pip("download", "--dest", str(folder), *target, *hashed)
    ours = _our_wheel(folder)
    line = f"fruits=={version('fruits')} --hash=sha256:{_digest(ours)}\n"
    requirements.write_text(pinned.rstrip("\n") + "\n" + line, encoding="utf-8")


def _our_wheel(folder: Path) -> Path:
    """Build the wheel of the checkout that is installed, or fetch that of the installed version."""
    before = set(folder.iterdir())
    checkout = _checkout(distribution("fruits"))
    if checkout is not None:
        _pip("wheel", "--no-deps", "--wheel-dir", str(folder), str(checkout))
    else:
        _pip("download", "--no-deps", "--only-binary", ":all:", "--dest", str(folder), f"fruits=={version('fruits')}")
    (ours,) = set(folder.iterdir()) - before
    return ours


def _checkout(installed: Distribution) -> Path | None:
    """Return the folder that a package was installed from, as pip notes it: https://peps.python.org/pep-0610/."""
    noted = installed.read_text("direct_url.json")
    url = json.loads(noted)["url"] if noted else ""
    path = Path(unquote(urlparse(url).path)) if url.startswith("file:") else None
    return path if path is not None and (path / "pyproject.toml").is_file() else None


def _pip(*words: str) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PIP_SECONDS)
    if done.returncode != 0:
        raise SettingsError(
            f"pip {words[0]} could not get the wheels of a node:\n{done.stderr.strip()[-2000:]}\n"
            "Is the package index of this machine there? It is what pip is configured with."
        )


def _upload(
    account: Account, folder: Path, staged: StagedFiles, manifest: dict[str, Any], tell: Callable[[str], None]
) -> None:
    s3 = account.client("s3")
    bucket, root = split_address(staged.root)
    manifest_key = split_address(staged.manifest)[1]
    there = _manifest(account, staged).get("files", {})
    wanted = [name for name, digest in manifest["files"].items() if there.get(name) != digest]
    size = sum((folder / name).stat().st_size for name in wanted)
    tell(f"uploading {len(wanted)} of {len(manifest['files'])} files, {size / 1e6:,.0f} MB, to {staged.root}")
    with explained(f"upload to {staged.root}"):
        # While files change, no manifest says that they are whole.
        s3.delete_object(Bucket=bucket, Key=manifest_key)
        for name in wanted:
            s3.upload_file(str(folder / name), bucket, f"{root}/{name}")
        for name in set(there) - set(manifest["files"]):
            s3.delete_object(Bucket=bucket, Key=f"{root}/{name}")
        s3.put_object(Bucket=bucket, Key=manifest_key, Body=json.dumps(manifest, indent=2).encode())


def _manifest(account: Account, staged: StagedFiles) -> dict[str, Any]:
    content = account.read(staged.manifest)
    if content is None:
        return {}
    try:
        found = json.loads(content)
    except ValueError as error:
        raise JobError(f"{staged.manifest} is damaged: {error}. Remove it, and stage again.") from error
    return found if isinstance(found, dict) else {}


def _sources() -> str:
    """Return one digest of all that the wheel would hold."""
    total = sha256()
    for package in ("fruits", "backends"):
        root = Path(str(files(package)))
        for path in _under(root):
            if path.suffix != ".pyc":
                total.update(f"{package}/{path.relative_to(root).as_posix()}\0{_digest(path)}\n".encode())
    return total.hexdigest()


def _under(folder: Path) -> Iterator[Path]:
    return iter(sorted(path for path in folder.rglob("*") if path.is_file()))


def _digest(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()
