"""The recogniser: images in, labels with calibrated confidences or rejections out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple, cast

import numpy as np
import numpy.typing as npt

from fruits.errors import ModelError
from fruits.image_features import ImageInput, image_features
from fruits.images.decode import DecodeMode, Decoding
from fruits.network.featurizer import NeuralNetwork, compile_network
from fruits.recogniser.decision import REASONS, Decision, Reason, Thresholds
from fruits.recogniser.files import StoredRecogniser, read_recogniser
from fruits.recogniser.scoring import Scorer
from fruits.storage.folder import Folder

NEAREST = 3  # training images of a recognition


class LabelScore(NamedTuple):
    """A label with its calibrated probability, in [0, 1]."""

    label: str
    score: float


class Neighbour(NamedTuple):
    """A training image near the recognised one.

    Attributes
    ----------
    key : str
        The key of its picture in :attr:`Recogniser.thumbnails`.
    label : str
        Its label in the source, which `--classes` may have mapped.
    path : str
        Its path in the source.
    """

    key: str
    label: str
    path: str


@dataclass(frozen=True, slots=True)
class Recognition:
    """The result for one image.

    Attributes
    ----------
    prediction : str or None
        The most probable label; None if the image is rejected.
    confidence : float
        The calibrated probability of the most probable label, in [0, 1], also of a rejected image.
    reason : {None, "uncertain", "unlike-anything"}
        The reason of the rejection.
    top : tuple of LabelScore
        The five most probable labels, or all if there are fewer, the most probable first.
    nearest : tuple of Neighbour
        Three training images near the image, the nearest first.
    """

    prediction: str | None
    confidence: float
    reason: Reason | None
    top: tuple[LabelScore, ...]
    nearest: tuple[Neighbour, ...]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Recogniser:
    """A trained recogniser.

    Attributes
    ----------
    labels : tuple of str
        The labels that it predicts, sorted.
    crops : {1, 2}
        Crops of each image: the whole, and the centre if 2.
    network : mapping of str to str
        The network that computes the features: ``backbone``, ``engine``, ``weights`` and ``decoding``.
    version : str
        The first 12 digits of the SHA-256 of its content.
    decision : Decision
        Temperature and thresholds.
    scorer : Scorer
    neighbours : tuple of Neighbour
        The training image nearest each prototype.
    thumbnails : mapping of str to bytes
        JPEG pictures of the neighbours, by key; pictures of images that no longer exist are missing.
    """

    labels: tuple[str, ...]
    crops: int
    network: Mapping[str, str]
    version: str
    decision: Decision
    scorer: Scorer
    neighbours: tuple[Neighbour, ...]
    thumbnails: Mapping[str, bytes]

    def __repr__(self) -> str:
        return f"Recogniser(labels={len(self.labels)}, crops={self.crops}, version={self.version!r})"

    @property
    def decoding(self) -> Decoding:
        """The settings of the decoder."""
        return Decoding(cast(DecodeMode, self.network["decoding"]), self.crops)

    @classmethod
    def load(cls, folder: str | Folder) -> Recogniser:
        """Return the recogniser stored in a folder.

        Raises
        ------
        ModelError
            The recogniser is missing or corrupt, its schema is unknown, or its parts contradict each other.
        """
        return cls.from_stored(read_recogniser(folder if isinstance(folder, Folder) else Folder.at(folder)))

    @classmethod
    def from_stored(cls, stored: StoredRecogniser) -> Recogniser:
        """Return the recogniser of the content of its files."""
        return cls(
            labels=stored.labels,
            crops=stored.crops,
            network=stored.network,
            version=stored.version,
            decision=Decision(stored.temperature, Thresholds(**stored.thresholds)),
            scorer=Scorer(**stored.arrays),
            neighbours=tuple(Neighbour(*each) for each in stored.neighbours),
            thumbnails=stored.thumbnails,
        )

    def recognise(self, images: ImageInput | Iterable[ImageInput]) -> list[Recognition]:
        """Return the recognition of each image.

        Parameters
        ----------
        images : path, bytes, PIL.Image, ndarray, or an iterable of these
            See :func:`fruits.features`.

        Raises
        ------
        DatasetError
            An image cannot be used; the message names it.
        ModelError
            The network of this installation differs from the one of the recogniser.
        """
        return self.recognise_features(image_features(images, self.compile_network(), self.decoding))

    def compile_network(self) -> NeuralNetwork:
        """Return the network that computes the features.

        Raises
        ------
        ModelError
            The network of this installation differs from the one of the recogniser, or has another number of features.
        """
        network = compile_network(self.network["backbone"], self.network["engine"])
        if network.weights_digest != self.network["weights"]:
            raise ModelError(
                f"the recogniser belongs to weights {self.network['weights'][:12]}, but this installation has "
                f"{network.weights_digest[:12]}. Train it again, or install the version of Fruits that trained it."
            )
        if network.features != len(self.scorer.mean):
            raise ModelError(
                f"the recogniser is for {len(self.scorer.mean):,} features, but {network.backbone} has "
                f"{network.features:,}. Train it again."
            )
        return network

    def recognise_features(self, features: npt.NDArray[np.float32]) -> list[Recognition]:
        """Return the recognition of each image.

        Parameters
        ----------
        features : ndarray of shape (n, crops, d), float32

        Raises
        ------
        ModelError
            The array has another shape.
        """
        expected = (self.crops, len(self.scorer.mean))
        if features.ndim != 3 or features.shape[1:] != expected:
            raise ModelError(
                f"features of shape {features.shape}: not allowed. Allowed: (n, {expected[0]}, {expected[1]}), "
                "a row for each crop of each image."
            )
        return list(self._recognitions(features))

    def _recognitions(self, features: npt.NDArray[np.float32]) -> Iterator[Recognition]:
        scores = self.scorer.scores(features, len(self.labels), neighbours=NEAREST)
        decided = self.decision.decide(scores)
        for order, probabilities, code, nearest in zip(*decided, scores.nearest, strict=True):
            reason = REASONS[code]
            top = tuple(LabelScore(self.labels[each], float(p)) for each, p in zip(order, probabilities, strict=True))
            yield Recognition(
                prediction=None if reason else top[0].label,
                confidence=top[0].score,
                reason=reason,
                top=top,
                nearest=tuple(self.neighbours[prototype] for prototype in nearest),
            )
