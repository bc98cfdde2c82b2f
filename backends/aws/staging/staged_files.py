"""Addresses of the staged files in the bucket, below ``fruits/stage/``, which nodes read but cannot write."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version

from backends.aws.account.clients import split_address
from backends.aws.emr.releases import Release


@dataclass(frozen=True, slots=True)
class StagedFiles:
    """Addresses of the files that are staged for one version of Fruits, of Python and of glibc.

    Attributes
    ----------
    root : str
        ``s3://BUCKET/fruits/stage/VERSION-pythonX.Y`` or ``…-glibcA.B``.
    """

    root: str

    @classmethod
    def for_release(cls, bucket: str, release: Release) -> StagedFiles:
        """Return the addresses for the installed version of Fruits.

        Parameters
        ----------
        bucket : str
            Without ``s3://``.
        release : Release
        """
        glibc = f"-glibc{release.glibc[0]}.{release.glibc[1]}" if release.brings_python else ""
        return cls(f"s3://{bucket}/fruits/stage/{version('fruits')}-python{release.python}{glibc}")

    @property
    def bucket(self) -> str:
        """The bucket, without ``s3://``."""
        return split_address(self.root)[0]

    @property
    def wheelhouse(self) -> str:
        """The folder of the wheels and of ``requirements.txt``, which pins the hash of each."""
        return f"{self.root}/wheelhouse"

    @property
    def bootstrap(self) -> str:
        """The script that builds the environment of a node."""
        return f"{self.root}/bootstrap_emr.sh"

    @property
    def step(self) -> str:
        """The program for spark-submit."""
        return f"{self.root}/emr_step.py"

    @property
    def weights(self) -> str:
        """The folder of the networks' weights."""
        return f"{self.root}/weights"

    @property
    def python_archive(self) -> str:
        """A build of Python for nodes that have none; its digest is in the same address plus ``.sha256``."""
        return f"{self.root}/python.tar.gz"

    @property
    def environment(self) -> str:
        """The environment of EMR Serverless, for ``spark.archives``."""
        return f"{self.root}/environment.tar.gz"

    @property
    def manifest(self) -> str:
        """The list of the staged files, written last."""
        return f"{self.root}/staged.json"
