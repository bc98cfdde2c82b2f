from __future__ import annotations

import hashlib

import numpy as np

from fruits.network.digests import content_digest, tensor_digest


def test_tensor_digest_covers_names_shapes_and_bytes() -> None:
    kernel, gamma = np.arange(6, dtype=np.float32).reshape(3, 2), np.ones(2, np.float32)
    expected = hashlib.sha256(b"a/kernel(3, 2)" + kernel.tobytes() + b"b/gamma(2,)" + gamma.tobytes()).hexdigest()

    assert tensor_digest({("a", "kernel"): kernel, ("b", "gamma"): gamma}) == expected
    assert tensor_digest({("a", "kernel"): np.asfortranarray(kernel), ("b", "gamma"): gamma}) == expected
    assert tensor_digest({("b", "gamma"): gamma, ("a", "kernel"): kernel}) != expected
    assert tensor_digest({("a", "kernel"): kernel.reshape(2, 3), ("b", "gamma"): gamma}) != expected
    assert tensor_digest({("a", "kernel"): kernel, ("b", "beta"): gamma}) != expected


def test_content_digest_separates_graph_and_constants() -> None:
    expected = hashlib.sha256(b"\x02\0\0\0\0\0\0\0" + b"ab" + b"c").hexdigest()
    assert content_digest(b"ab", b"c") == expected
    assert content_digest(b"a", b"bc") != expected
