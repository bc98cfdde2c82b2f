"""Addresses of the staged files in the bucket, below ``fruits/stage/``."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version

__all__ = ["StagedFiles"]


@dataclass(frozen=True, slots=True)
class StagedFiles:
    """Addresses of the files that are staged for one version of Fruits and one version of Python.

    Attributes
    ----------
    root : str
        ``s3://BUCKET/fruits/stage/VERSION-pythonX.Y``.
    """

    root: str

    @classmethod
    def for_python(cls, bucket: str, python: str) -> StagedFiles:
        """Return the addresses for the installed version of Fruits.

        Parameters
        ----------
        bucket : str
            Without ``s3://``.
        python : str
            The Python version of the cluster, such as ``3.11``.
        """
        return cls(f"s3://{bucket}/fruits/stage/{version('fruits')}-python{python}")

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
    def manifest(self) -> str:
        """The list of the staged files, written last."""
        return f"{self.root}/staged.json"
