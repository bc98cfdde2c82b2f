"""What ``fruits cluster stage`` puts into a bucket, and where: everything a node needs, below ``fruits/``."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version

__all__ = ["StagedFiles"]


@dataclass(frozen=True, slots=True)
class StagedFiles:
    """The addresses of what is staged for one version of Fruits and one Python.

    Attributes
    ----------
    root : str
        ``s3://BUCKET/fruits/stage/VERSION-pythonX.Y``.
    """

    root: str

    @classmethod
    def of(cls, bucket: str, python: str) -> StagedFiles:
        """Return what belongs to this version of Fruits.

        Parameters
        ----------
        bucket : str
            Without ``s3://``.
        python : str
            The version of the cluster's Python, such as ``3.11``.
        """
        return cls(f"s3://{bucket}/fruits/stage/{version('fruits')}-python{python}")

    @property
    def wheelhouse(self) -> str:
        """The folder of the wheels and of ``requirements.txt``, which pins each by its hash."""
        return f"{self.root}/wheelhouse"

    @property
    def bootstrap(self) -> str:
        """The script that builds the environment of a node."""
        return f"{self.root}/bootstrap_emr.sh"

    @property
    def step(self) -> str:
        """The program that spark-submit starts."""
        return f"{self.root}/emr_step.py"

    @property
    def weights(self) -> str:
        """The folder of the networks' weights."""
        return f"{self.root}/weights"

    @property
    def manifest(self) -> str:
        """The list of all that is there, written last."""
        return f"{self.root}/staged.json"
