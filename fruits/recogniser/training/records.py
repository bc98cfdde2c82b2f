"""A trained recogniser as the content of its files, and its sources back from there."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from fruits.errors import ModelError
from fruits.model.moments import Moments
from fruits.recogniser.files import StoredRecogniser
from fruits.recogniser.training.fitting import Source
from fruits.recogniser.training.sample import Sample
from fruits.recogniser.training.training import Trained
from fruits.text import name_bytes


def picture_key(source: int, path: str) -> str:
    """Return the key of the picture of a training image: 16 hexadecimal digits."""
    return hashlib.sha256(name_bytes(f"{source}/{path}")).hexdigest()[:16]


def stored_recogniser(
    trained: Trained,
    sources: Sequence[Source],
    origins: Sequence[Mapping[str, object]],
    network: Mapping[str, str],
    pictures: Mapping[str, bytes],
) -> StoredRecogniser:
    """Return the content of the files of a recogniser.

    Parameters
    ----------
    trained : Trained
    sources : sequence of Source
    origins : sequence of mappings
        Of each source: its ``address``, without credentials; the ``digest`` of its list of images; the number of
        ``images`` in it, and of ``rejects`` among them.
    network : mapping of str to str
        ``backbone``, ``engine``, ``weights`` and ``decoding``.
    pictures : mapping of str to bytes
        JPEG pictures of the representatives, by :func:`picture_key`; those of missing images are missing.
    """
    decision, scorer = trained.calibration.decision, trained.scorer
    blobs = {}
    for number, source in enumerate(sources):
        for kind, part in (("fit", source.fit), ("held_out", source.held_out), ("sample", source.sample)):
            blobs[f"{number}.{kind}"] = np.frombuffer(part.to_bytes(), np.uint8)
    return StoredRecogniser(
        labels=trained.labels,
        crops=sources[0].sample.features.shape[1],
        network=network,
        temperature=decision.temperature,
        thresholds=decision.thresholds._asdict(),
        calibration_images=trained.calibration.images,
        counts=trained.counts,
        sources=tuple(
            {**origin, "weight": source.weight, "classes": source.classes}
            for source, origin in zip(sources, origins, strict=True)
        ),
        neighbours=tuple((picture_key(source, path), label, path) for source, label, path in trained.representatives),
        arrays={name: getattr(scorer, name) for name in scorer.__dataclass_fields__},
        thumbnails=pictures,
        training=blobs,
        method=trained.method,
    )


def stored_sources(stored: StoredRecogniser) -> list[Source]:
    """Return the sources of a recogniser that was read with ``training=True``.

    Raises
    ------
    ModelError
        They are corrupt.
    """
    try:
        return [
            Source(
                fit=Moments.from_bytes(stored.training[f"{number}.fit"].tobytes()),
                held_out=Moments.from_bytes(stored.training[f"{number}.held_out"].tobytes()),
                sample=Sample.from_bytes(stored.training[f"{number}.sample"].tobytes()),
                weight=record["weight"],
                classes=record["classes"],
            )
            for number, record in enumerate(stored.sources)
        ]
    except (ValueError, KeyError) as error:
        raise ModelError(f"the recogniser has corrupt training data: {error}. Train it again.") from error
