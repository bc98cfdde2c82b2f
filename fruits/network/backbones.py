"""The networks that compute features: Keras applications and their preprocessing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fruits.errors import SettingsError


@dataclass(frozen=True, slots=True)
class Backbone:
    """One Keras application, without its top and with global average pooling.

    Attributes
    ----------
    name : str
        Name in ``keras.applications``.
    size : int
        Height and width of the input, in pixels.
    features : int
        Length of the feature vector.
    preprocessing : {"tf", "caffe", "none"}
        ``tf``: ``x / 127.5 - 1``. ``caffe``: RGB to BGR, then the ImageNet means (103.939, 116.779, 123.68) are
        subtracted. ``none``: 0 to 255 unchanged, because the network contains the scaling. The names are Keras'
        (``keras.applications.imagenet_utils.preprocess_input``).
    weights_file : str
        Official file of the ImageNet weights, relative to `KERAS_FILES`.
    weights_md5 : str or None
        MD5 of that file, from the source of ``keras.applications``; None if the file is not checked.
    weights_digest : str or None
        :func:`fruits.network.digests.tensor_digest` of the ImageNet tensors; None if any tensors are accepted.
    """

    name: str
    size: int
    features: int
    preprocessing: Literal["tf", "caffe", "none"]
    weights_file: str
    weights_md5: str | None = None
    weights_digest: str | None = None


# The host that keras.applications downloads from.
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
    """Return the backbone of that name.

    Raises
    ------
    SettingsError
        The name is unknown.
    """
    if not isinstance(name, str) or name not in BACKBONES:
        raise SettingsError(f"`backbone` = {name}: not known. Allowed: {', '.join(BACKBONES)}.")
    return BACKBONES[name]
