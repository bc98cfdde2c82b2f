"""The networks that features can be taken from: Keras applications whose preprocessing is known here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fruits.errors import SettingsError

__all__ = ["BACKBONES", "KERAS_FILES", "Backbone", "backbone"]


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
    weights_file : str
        The official file of its ImageNet weights, below `KERAS_FILES`.
    weights_md5 : str or None
        The MD5 of that file, as ``keras.applications`` has it.
    weights_digest : str or None
        The :func:`fruits.network.weights.tensor_digest` of its ImageNet tensors; None where it is not known.
    """

    name: str
    size: int
    features: int
    preprocessing: Literal["tf", "caffe", "none"]
    weights_file: str
    weights_md5: str | None = None
    weights_digest: str | None = None


# Where keras.applications downloads from.
KERAS_FILES = "https://storage.googleapis.com/tensorflow/keras-applications/"

BACKBONES = {
    entry.name: entry
    for entry in (
        Backbone(
            "MobileNetV2",
            224,
            1280,
            "tf",
            "mobilenet_v2/mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5",
            weights_digest="f0ec0e77572672762b6e25a7a328329f39af83d18fb2e8f9456cab670187746a",
        ),
        Backbone(
            "ResNet50",
            224,
            2048,
            "caffe",
            "resnet/resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5",
            weights_md5="4d473c1dd8becc155b73f8504c6f6626",
        ),
        Backbone(
            "EfficientNetV2B0",
            224,
            1280,
            "none",
            "efficientnet_v2/efficientnetv2-b0_notop.h5",
            weights_md5="893217f2bb855e2983157299931e43ff",
        ),
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
