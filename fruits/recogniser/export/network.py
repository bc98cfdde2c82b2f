"""MobileNetV2 as ONNX nodes, from the packaged weights (https://arxiv.org/abs/1801.04381, as in Keras)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from fruits.network.packaged import packaged_tensors
from fruits.recogniser.export.graph import Graph

EPSILON = 1e-3  # of Keras' batch normalisation in this network
BLOCKS = 17
REDUCING = {1, 3, 6, 13}  # blocks with stride 2
ADDING = {2, 4, 5, 7, 8, 9, 11, 12, 14, 15}  # blocks whose input is added to their output

Tensors = Mapping[tuple[str, str], npt.NDArray[np.float32]]


def add_network(graph: Graph, pixels: str) -> str:
    """Add the network, and return its features, (n, 1280); `pixels` is float32 of shape (n, 3, 224, 224) in [-1, 1]."""
    tensors = packaged_tensors()
    low, high = graph.constant("zero", 0), graph.constant("six", 6)

    def convolution(value: str, layer: str, normalisation: str, *, stride: int = 1, clip: bool = True) -> str:
        kernel, bias = _folded(tensors, layer, normalisation)
        size = kernel.shape[2]
        value = graph.node(
            "Conv",
            value,
            graph.constant(f"{layer}/kernel", kernel),
            graph.constant(f"{layer}/bias", bias),
            name=layer,
            group=len(kernel) if kernel.shape[1] == 1 else 1,
            strides=[stride, stride],
            pads=[0] * 4 if size == 1 else [0, 0, 1, 1] if stride == 2 else [1] * 4,  # "same" for an even size
        )
        return graph.node("Clip", value, low, high) if clip else value

    value = convolution(pixels, "Conv1", "bn_Conv1", stride=2)
    for block in range(BLOCKS):
        prefix = f"block_{block}" if block else "expanded_conv"
        entered = value
        if block:
            value = convolution(value, f"{prefix}_expand", f"{prefix}_expand_BN")
        stride = 2 if block in REDUCING else 1
        value = convolution(value, f"{prefix}_depthwise", f"{prefix}_depthwise_BN", stride=stride)
        value = convolution(value, f"{prefix}_project", f"{prefix}_project_BN", clip=False)
        if block in ADDING:
            value = graph.node("Add", entered, value)
    value = convolution(value, "Conv_1", "Conv_1_bn")
    return graph.node("ReduceMean", value, name="features", axes=[2, 3], keepdims=0)


def _folded(
    tensors: Tensors, layer: str, normalisation: str
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return kernel (out, in, height, width) and bias (out,) of a convolution with its batch normalisation."""
    gamma, beta, mean, variance = (
        tensors[normalisation, name].astype(np.float64) for name in ("gamma", "beta", "moving_mean", "moving_variance")
    )
    scale = gamma / np.sqrt(variance + EPSILON)
    kernel = tensors[layer, "kernel"].astype(np.float64)  # height, width, in, out
    depthwise = kernel.shape[3] == 1 and kernel.shape[2] == len(gamma)  # height, width, out, 1
    kernel = kernel.transpose(2, 3, 0, 1) if depthwise else kernel.transpose(3, 2, 0, 1)
    return kernel * scale[:, None, None, None], beta - mean * scale
