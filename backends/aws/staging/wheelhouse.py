"""Build the files that nodes need and upload them to the bucket: ``fruits cluster stage``.

The files are the wheel of Fruits, the wheels that ``requirements.txt`` of this package pins by their hashes, for the
Python and glibc of the cluster, the scripts, and the weights of networks that are not packaged with Fruits. Nodes need
no package index and no internet access.
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

from backends.aws.account.clients import Account, split_address, translated_errors
from backends.aws.emr.releases import Release
from backends.aws.staging.staged_files import StagedFiles
from fruits.errors import JobError, SettingsError
from fruits.network.backbones import backbone
from fruits.network.packaged import PACKAGED
from fruits.network.weights import find_weights

__all__ = ["NOTEBOOK", "REQUIREMENTS", "gather", "is_staged", "offer_notebook", "stage"]

AWS = files("backends.aws")
REQUIREMENTS = "requirements.txt"
NOTEBOOK = "feature_extraction.ipynb"
# The folder for the notebooks of JupyterHub's first user on EMR:
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
    notify: Callable[[str], None] = lambda message: None,
) -> StagedFiles:
    """Upload the files that the nodes of a cluster need, and return their addresses.

    Files with the same hash in the bucket are not uploaded again.

    Parameters
    ----------
    account : Account
    bucket : str
        Without ``s3://``.
    release : Release
        Selects the wheels by its Python and glibc.
    backbones : sequence of str
        The networks that the nodes build. Weights are uploaded except for `PACKAGED`, which is part of the wheel.
    notify : callable
        Receives progress messages.

    Raises
    ------
    SettingsError
        The wheel of Fruits cannot be built, or a package has no wheel for the cluster.
    """
    if release.python is None:
        raise SettingsError("This EMR release has no Python that Fruits supports. Choose another release.")
    staged = StagedFiles.for_python(bucket, release.python)
    with tempfile.TemporaryDirectory(prefix="fruits-stage-") as temporary:
        folder = Path(temporary)
        notify(f"gathering wheels for Python {release.python} and glibc {'.'.join(map(str, release.glibc))}")
        gather(folder / "wheelhouse", release)
        for name in ("bootstrap_emr.sh", "emr_step.py"):
            (folder / name).write_bytes((AWS / "emr" / name).read_bytes())
        digests = {}
        (folder / "weights").mkdir()
        for name in sorted(_unpackaged(backbones)):
            weights = find_weights(backbone(name))
            shutil.copy(weights.path, folder / "weights" / f"{name}.safetensors")
            digests[name] = weights.digest
        manifest = {
            "version": version("fruits"),
            "sources": _sources(),
            "weights": digests,
            "files": {path.relative_to(folder).as_posix(): _digest(path) for path in _under(folder)},
        }
        _upload(account, folder, staged, manifest, notify)
    return staged


def is_staged(account: Account, staged: StagedFiles, backbones: Sequence[str] = ()) -> bool:
    """Return whether files are staged that were built from the installed sources, with these weights."""
    manifest = _manifest(account, staged)
    return manifest.get("sources") == _sources() and _unpackaged(backbones) <= set(manifest.get("weights", {}))


def _unpackaged(backbones: Sequence[str]) -> set[str]:
    return set(backbones) - {PACKAGED}


def offer_notebook(account: Account, bucket: str) -> str:
    """Upload the notebook to JupyterHub's folder unless it exists there, and return its address."""
    s3 = account.client("s3")
    key = f"{NOTEBOOKS}/{NOTEBOOK}"
    with translated_errors(f"upload the notebook to s3://{bucket}"):
        if not s3.list_objects_v2(Bucket=bucket, Prefix=key)["KeyCount"]:
            s3.put_object(Bucket=bucket, Key=key, Body=(AWS / "emr" / NOTEBOOK).read_bytes())
    return f"s3://{bucket}/{key}"


def gather(folder: Path, release: Release) -> None:
    """Write the wheels for a release, and ``requirements.txt``, to a new folder.

    Raises
    ------
    SettingsError
        A wheel cannot be built or downloaded; the message has the output of pip.
    """
    folder.mkdir(parents=True)
    pinned = (AWS / "staging" / REQUIREMENTS).read_text(encoding="utf-8")
    requirements = folder / REQUIREMENTS
    requirements.write_text(pinned, encoding="utf-8")
    short = str(release.python).replace(".", "")
    platforms = [f"manylinux_2_{minor}_x86_64" for minor in range(release.glibc[1], OLDEST_GLIBC - 1, -1)]
    target = [argument for platform in (*platforms, *LEGACY) for argument in ("--platform", platform)]
    target += ["--python-version", str(release.python), "--implementation", "cp"]
    target += [argument for abi in (f"cp{short}", "abi3", "none") for argument in ("--abi", abi)]
    hashed = ("--no-deps", "--only-binary", ":all:", "--require-hashes", "--requirement", str(requirements))
    _pip("download", "--dest", str(folder), *target, *hashed)
    own = _own_wheel(folder)
    line = f"fruits=={version('fruits')} --hash=sha256:{_digest(own)}\n"
    requirements.write_text(pinned.rstrip("\n") + "\n" + line, encoding="utf-8")


def _own_wheel(folder: Path) -> Path:
    """Build the wheel of Fruits from the installed checkout, or download that of the installed version."""
    before = set(folder.iterdir())
    checkout = _checkout(distribution("fruits"))
    if checkout is not None:
        _pip("wheel", "--no-deps", "--wheel-dir", str(folder), str(checkout))
    else:
        _pip("download", "--no-deps", "--only-binary", ":all:", "--dest", str(folder), f"fruits=={version('fruits')}")
    (own,) = set(folder.iterdir()) - before
    return own


def _checkout(installed: Distribution) -> Path | None:
    """Return the source folder of an installed package, if pip has recorded one: https://peps.python.org/pep-0610/."""
    record = installed.read_text("direct_url.json")
    url = json.loads(record)["url"] if record else ""
    path = Path(unquote(urlparse(url).path)) if url.startswith("file:") else None
    return path if path is not None and (path / "pyproject.toml").is_file() else None


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-P", "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PIP_SECONDS)
    if done.returncode != 0:
        raise SettingsError(
            f"pip {arguments[0]} failed for the wheels of the nodes:\n{done.stderr.strip()[-2000:]}\n"
            "Check that the package index in pip's configuration is reachable."
        )


def _upload(
    account: Account, folder: Path, staged: StagedFiles, manifest: dict[str, Any], notify: Callable[[str], None]
) -> None:
    s3 = account.client("s3")
    bucket, root = split_address(staged.root)
    manifest_key = split_address(staged.manifest)[1]
    stored = _manifest(account, staged).get("files", {})
    changed = [name for name, digest in manifest["files"].items() if stored.get(name) != digest]
    size = sum((folder / name).stat().st_size for name in changed)
    notify(f"uploading {len(changed)} of {len(manifest['files'])} files, {size / 1e6:,.0f} MB, to {staged.root}")
    with translated_errors(f"upload to {staged.root}"):
        # The manifest marks a complete set of files: delete it first, write it last.
        s3.delete_object(Bucket=bucket, Key=manifest_key)
        for name in changed:
            s3.upload_file(str(folder / name), bucket, f"{root}/{name}")
        for name in set(stored) - set(manifest["files"]):
            s3.delete_object(Bucket=bucket, Key=f"{root}/{name}")
        s3.put_object(Bucket=bucket, Key=manifest_key, Body=json.dumps(manifest, indent=2).encode())


def _manifest(account: Account, staged: StagedFiles) -> dict[str, Any]:
    content = account.read(staged.manifest)
    if content is None:
        return {}
    try:
        manifest = json.loads(content)
    except ValueError as error:
        raise JobError(f"{staged.manifest} is corrupt: {error}. Delete it, and run: fruits cluster stage.") from error
    return manifest if isinstance(manifest, dict) else {}


def _sources() -> str:
    """Return one digest of all files of the wheel."""
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
