import hashlib

import numpy as np

from fruits.model import fingerprint
from fruits.model.fingerprint import built_in_images, numeric_fingerprint, solver_fingerprint
from fruits.network.featurizer import compile_network

DIGESTS = ["99b228573ae0b9e4", "c76a8e163712d771", "6f87cdedf8242c32", "a3e7553dc5889e19"]


def test_built_in_images_never_change():
    # Another value changes the fingerprint of every machine.
    images = built_in_images(224)
    assert (images.shape, images.dtype) == ((4, 224, 224, 3), np.uint8)
    digests = [hashlib.sha256(image.tobytes()).hexdigest()[:16] for image in images]
    assert digests == DIGESTS
    assert images.reshape(4, -1).std(axis=1).min() > 40


def test_one_bit_of_one_feature_changes_the_fingerprint():
    seen = []

    def featurizer(pixels):
        seen.append(pixels)
        return pixels.reshape(4, -1)[:, :9].astype(np.float32)

    def other(pixels):
        features = featurizer(pixels)
        features[3, 8] = np.nextafter(features[3, 8], np.float32(300))
        return features

    assert numeric_fingerprint(featurizer, 32) == numeric_fingerprint(featurizer, 32)
    assert numeric_fingerprint(featurizer, 32) != numeric_fingerprint(other, 32)
    assert {pixels.shape for pixels in seen} == {(4, 32, 32, 3)}


def test_the_fingerprint_of_a_network_is_repeatable():
    featurizer = compile_network("MobileNetV2").load()
    assert numeric_fingerprint(featurizer) == numeric_fingerprint(featurizer)


def test_the_solver_fingerprint_covers_the_eigenvectors(monkeypatch):
    first = solver_fingerprint()
    assert solver_fingerprint() == first
    eigh = fingerprint.eigh

    def other(matrix):
        values, vectors = eigh(matrix)
        vectors = vectors.copy()
        vectors[0, 0] = np.nextafter(vectors[0, 0], 9)
        return values, vectors

    monkeypatch.setattr(fingerprint, "eigh", other)
    assert solver_fingerprint() != first
