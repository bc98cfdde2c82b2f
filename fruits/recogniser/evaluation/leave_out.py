"""Labels left out of training: how often an unseen variety is rejected, or placed in its class.

The usual test images show the fruits that were trained on. A recogniser in use meets others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fruits.recogniser.decision import Decision
from fruits.recogniser.methods import Method
from fruits.recogniser.scoring import UNKNOWN
from fruits.recogniser.training.fitting import Source, Statistics, fit, without_group

MOST_LABELS = 200
MOST_IMAGES = 64  # of a label that is left out


@dataclass(frozen=True, slots=True)
class LeftOut:
    """The recognition of the images of a label that was left out.

    Attributes
    ----------
    source : int
    label : str
    siblings : int
        Other labels of the same class.
    images : int
        Images that were recognised.
    rejected : int
        Images that were rejected.
    placed : int
        Images that were not rejected, and whose prediction is the class of the label.
    """

    source: int
    label: str
    siblings: int
    images: int
    rejected: int
    placed: int


def choose_labels(statistics: Statistics, most: int = MOST_LABELS) -> list[int]:
    """Return the numbers of the groups to leave out: those of a class, at most `most`, chosen by SHA-256.

    Of two groups, none can be left out.
    """
    if len(statistics.groups) < 3:
        return []
    known = [number for number, group in enumerate(statistics.groups) if group.class_index != UNKNOWN]
    known.sort(key=lambda number: hashlib.sha256(repr(statistics.groups[number][:2]).encode()).digest())
    return sorted(known[:most])


def leave_out(
    statistics: Statistics, sources: Sequence[Source], number: int, classes: int, decision: Decision, method: Method
) -> LeftOut:
    """Return the recognition of a group's images by a scorer that is fitted without the group.

    Parameters
    ----------
    statistics : Statistics
        Of all groups.
    sources : sequence of Source
    number : int
        The group to leave out.
    classes : int
        The number of classes.
    decision : Decision
    method : {"prototypes", "linear"}
        Those of the complete recogniser.
    """
    group = statistics.groups[number]
    samples = [source.sample for source in sources]
    sample = samples[group.source]
    own = np.array([label == group.label for label in sample.labels], bool)
    chosen = [~own if each == group.source else np.ones(len(samples[each]), bool) for each in range(len(samples))]
    rows = sample.features[own]
    rest = without_group(statistics, number, rows.reshape(-1, rows.shape[2]))
    decided = decision.decide(fit(rest, samples, chosen, method).scorer.scores(rows[:MOST_IMAGES], classes))
    rejected = decided.reasons > 0
    return LeftOut(
        source=group.source,
        label=group.label,
        siblings=sum(each.class_index == group.class_index for each in rest.groups),
        images=len(rejected),
        rejected=int(rejected.sum()),
        placed=int((~rejected & (decided.order[:, 0] == group.class_index)).sum()),
    )
