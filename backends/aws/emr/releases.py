"""The releases of EMR that Fruits knows: what each carries, and what that means for us.

The versions are those of https://docs.aws.amazon.com/emr/latest/ReleaseGuide/: "Application versions in Amazon EMR 7.x
releases", "Spark release history" and "Hadoop version history", read in 2026. The glibc is that of the system below:
Amazon Linux 2023 has 2.34, Amazon Linux 2 has 2.26.
"""

from __future__ import annotations

from typing import NamedTuple

from fruits.errors import SettingsError

__all__ = ["DEFAULT", "RELEASES", "Release", "release"]


class Release(NamedTuple):
    """What a release of EMR carries.

    Attributes
    ----------
    spark, hadoop : str
        EMR's builds of them.
    jupyterhub : str or None
        None where it could not be looked up; the application is there.
    python : str or None
        The newest interpreter on the nodes that both Fruits and this Spark run on; None where there is none.
    glibc : tuple of int
        Which wheels can be installed.
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

# The newest of the 7 line: Spark 3.5, which the tests run on; Python 3.11 on every node, so that nothing has to be
# fetched to build our environment; in standard support until April 2028.
DEFAULT = "emr-7.13.0"

NO_PYTHON = (
    "its Spark 3.3.0 runs on Python up to 3.10, its Amazon Linux 2 has Python 3.7 and glibc 2.26, and no wheel of "
    "openvino, pyarrow or pillow is for a glibc so old: theirs need 2.27 or 2.28. What works with it: "
    "`fruits cluster render`, to use the request by hand, and `cost`, `status` and `down`; no cluster is started on it"
)


def release(label: str, *, for_job: bool = False) -> Release:
    """Return what the release `label` carries.

    Parameters
    ----------
    label : str
        Such as ``emr-7.13.0``.
    for_job : bool, default False
        Whether Fruits is to run on it.

    Raises
    ------
    SettingsError
        The label is not in the table, or Fruits cannot run there.
    """
    if label not in RELEASES:
        raise SettingsError(f"release {label}: not known. Allowed: {', '.join(RELEASES)}.")
    found = RELEASES[label]
    if for_job and found.python is None:
        usable = (name for name, other in RELEASES.items() if other.python)
        raise SettingsError(f"release {label}: {NO_PYTHON}. Allowed for jobs: {', '.join(usable)}.")
    return found
