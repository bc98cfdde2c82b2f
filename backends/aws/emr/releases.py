"""EMR releases that Fruits supports, the versions that each contains, and the contents of the nodes of a cluster.

The versions are those of https://docs.aws.amazon.com/emr/latest/ReleaseGuide/: "Application versions in Amazon EMR 7.x
releases", "Spark release history" and "Hadoop version history", read in 2026. The glibc is that of the operating
system: 2.34 in Amazon Linux 2023, 2.26 in Amazon Linux 2.
"""

from __future__ import annotations

import sys
from typing import NamedTuple

from fruits.clusters.clouds import CloudCluster, DaskEc2Cluster, EmrServerlessCluster
from fruits.errors import SettingsError


class Release(NamedTuple):
    """The contents of an EMR release.

    Attributes
    ----------
    spark, hadoop : str
        EMR's build.
    jupyterhub : str or None
        The version; None if it was not looked up. Every release includes JupyterHub.
    python : str
        The Python of the nodes' environment.
    glibc : tuple of int
        The newest glibc that wheels may require.
    brings_python : bool
        True if the nodes have no such Python, and an archive of it is staged.
    requirements : str
        The file of ``backends/aws/staging`` that pins the wheels.
    unpacks_environment : bool
        True if an archive of the environment is staged, as on EMR Serverless, where no node installs the wheels.
    """

    spark: str
    hadoop: str
    jupyterhub: str | None
    python: str
    glibc: tuple[int, int]
    brings_python: bool = False
    requirements: str = "requirements.txt"
    unpacks_environment: bool = False

    @property
    def needs_python(self) -> bool:
        """True if an archive of Python must be staged."""
        return self.brings_python or self.unpacks_environment


RELEASES = {
    "emr-7.13.0": Release("3.5.6-amzn-2", "3.4.2-amzn-0", None, "3.11", (2, 34)),
    "emr-7.12.0": Release("3.5.6-amzn-1", "3.4.1-amzn-4", None, "3.11", (2, 34)),
    "emr-7.11.0": Release("3.5.6-amzn-0", "3.4.1-amzn-3", None, "3.11", (2, 34)),
    "emr-7.10.0": Release("3.5.5-amzn-1", "3.4.1-amzn-2", "1.5.0", "3.11", (2, 34)),
    "emr-7.9.0": Release("3.5.5-amzn-0", "3.4.1-amzn-1", "1.5.0", "3.11", (2, 34)),
    "emr-7.8.0": Release("3.5.4-amzn-0", "3.4.1-amzn-0", "1.5.0", "3.11", (2, 34)),
    # The release of the original processing chain. Amazon Linux 2 has Python 3.7 and glibc 2.26; its wheels are those
    # for glibc 2.17.
    "emr-6.9.0": Release("3.3.0-amzn-1", "3.3.3-amzn-1", "1.4.1", "3.11", (2, 26), True, "requirements-glibc-2.17.txt"),
}

# Of an EC2 instance for Dask: the Python that runs here, and the glibc of Amazon Linux 2023.
EC2_NODE = Release("none", "none", None, f"{sys.version_info.major}.{sys.version_info.minor}", (2, 34))

# The newest 7.x release: Spark 3.5, which the tests cover; Python 3.11 preinstalled on every node; in standard support
# until April 2028.
DEFAULT = "emr-7.13.0"


def release(label: str) -> Release:
    """Return the contents of a release, such as ``emr-7.13.0``.

    Raises
    ------
    SettingsError
        The label is unknown.
    """
    if label not in RELEASES:
        raise SettingsError(f"release {label}: unknown. Allowed: {', '.join(RELEASES)}.")
    return RELEASES[label]


def release_of(settings: CloudCluster) -> Release:
    """Return the contents of the nodes of a cluster.

    Raises
    ------
    SettingsError
        The release is unknown, or EMR Serverless does not have it.
    """
    if isinstance(settings, DaskEc2Cluster):
        return EC2_NODE
    found = release(settings.release)
    if not isinstance(settings, EmrServerlessCluster):
        return found
    if found.brings_python:
        raise SettingsError(f"release {settings.release}: not available on EMR Serverless here. Allowed: emr-7.*.")
    return found._replace(unpacks_environment=True)
