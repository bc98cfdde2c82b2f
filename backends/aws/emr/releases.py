"""EMR releases that Fruits supports, and the versions that each contains.

The versions are those of https://docs.aws.amazon.com/emr/latest/ReleaseGuide/: "Application versions in Amazon EMR 7.x
releases", "Spark release history" and "Hadoop version history", read in 2026. The glibc is that of the operating
system: 2.34 in Amazon Linux 2023, 2.26 in Amazon Linux 2.
"""

from __future__ import annotations

from typing import NamedTuple

from fruits.errors import SettingsError

__all__ = ["DEFAULT", "RELEASES", "Release", "release"]


class Release(NamedTuple):
    """The contents of an EMR release.

    Attributes
    ----------
    spark, hadoop : str
        EMR's build.
    jupyterhub : str or None
        The version; None if it was not looked up. Every release includes JupyterHub.
    python : str or None
        The newest Python on the nodes that Fruits and this Spark support; None if no Python qualifies.
    glibc : tuple of int
        The newest glibc that wheels may require.
    """

    spark: str
    hadoop: str
    jupyterhub: str | None
    python: str | None
    glibc: tuple[int, int]


RELEASES = {
    "emr-7.13.0": Release("3.5.6-amzn-2", "3.4.2-amzn-0", None, "3.11", (2, 34)),
    "emr-7.12.0": Release("3.5.6-amzn-1", "3.4.1-amzn-4", None, "3.11", (2, 34)),
    "emr-7.11.0": Release("3.5.6-amzn-0", "3.4.1-amzn-3", None, "3.11", (2, 34)),
    "emr-7.10.0": Release("3.5.5-amzn-1", "3.4.1-amzn-2", "1.5.0", "3.11", (2, 34)),
    "emr-7.9.0": Release("3.5.5-amzn-0", "3.4.1-amzn-1", "1.5.0", "3.11", (2, 34)),
    "emr-7.8.0": Release("3.5.4-amzn-0", "3.4.1-amzn-0", "1.5.0", "3.11", (2, 34)),
    "emr-6.9.0": Release("3.3.0-amzn-1", "3.3.3-amzn-1", "1.4.1", None, (2, 26)),
}

# The newest 7.x release: Spark 3.5, which the tests cover; Python 3.11 preinstalled on every node; in standard support
# until April 2028.
DEFAULT = "emr-7.13.0"

NO_PYTHON = (
    "not supported for jobs. Its Spark 3.3.0 supports Python up to 3.10, its Amazon Linux 2 has Python 3.7 and glibc "
    "2.26, and the wheels of openvino, pyarrow and pillow require glibc 2.27 or 2.28. `fruits cluster render`, `cost`, "
    "`status` and `down` accept it"
)


def release(label: str, *, for_job: bool = False) -> Release:
    """Return the contents of a release.

    Parameters
    ----------
    label : str
        Such as ``emr-7.13.0``.
    for_job : bool, default False
        Whether Fruits must run on it.

    Raises
    ------
    SettingsError
        The label is unknown, or Fruits cannot run on the release.
    """
    if label not in RELEASES:
        raise SettingsError(f"release {label}: unknown. Allowed: {', '.join(RELEASES)}.")
    contents = RELEASES[label]
    if for_job and contents.python is None:
        usable = (name for name, other in RELEASES.items() if other.python)
        raise SettingsError(f"release {label}: {NO_PYTHON}. Allowed for jobs: {', '.join(usable)}.")
    return contents
