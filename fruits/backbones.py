"""The networks that features can be taken from: Keras applications whose preprocessing is known here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fruits.errors import SettingsError

__all__ = ["BACKBONES", "Backbone", "backbone"]


@dataclass(frozen=True, slots=True)
class Backbone:
    """One Keras application, without its top and with global average pooling.

    Attributes
    ----------
    name : str
        Its name in ``keras.applications``.
    size : int
        Height and width of its input, in pixels.
    features : int
        The length of its feature vector.
    preprocessing : {"tf", "caffe", "none"}
        ``tf``: ``x / 127.5 - 1``. ``caffe``: RGB to BGR, then the ImageNet means (103.939, 116.779, 123.68) are
        subtracted. ``none``: 0 to 255 as they are, because the network scales them itself. The names are Keras'
        (``keras.applications.imagenet_utils.preprocess_input``).
    weights_digest : str or None
        The digest of its ImageNet tensors (:func:`fruits.weights.tensor_digest`), where one is known to check against.
    """

    name: str
    size: int
    features: int
    preprocessing: Literal["tf", "caffe", "none"]
    weights_digest: str | None = None


BACKBONES = {
    entry.name: entry
    for entry in (
        Backbone("MobileNetV2", 224, 1280, "tf", "f0ec0e77572672762b6e25a7a328329f39af83d18fb2e8f9456cab670187746a"),
        Backbone("ResNet50", 224, 2048, "caffe"),
        Backbone("EfficientNetV2B0", 224, 1280, "none"),
    )
}


def backbone(name: str) -> Backbone:
    """Return the backbone called `name`.

    Raises
    ------
    SettingsError
        No backbone has that name.
    """
    if name not in BACKBONES:
        raise SettingsError(f"--backbone {name}: not known. Allowed: {', '.join(BACKBONES)}.")
    return BACKBONES[name]
