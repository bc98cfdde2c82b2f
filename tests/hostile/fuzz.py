"""Fuzz one reader, guided by coverage: ``python -m tests.hostile.fuzz READER CORPUS [options of libFuzzer]``.

Requires atheris. CORPUS is a folder, created with seeds if it is missing. Fuzzing stops when a reader raises an
undocumented exception, allocates a gigabyte more than its libraries, or takes more than 20 seconds. The input is then
in ``crash-…``, ``oom-…`` or ``timeout-…``; give that file as CORPUS to reproduce.
"""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from collections.abc import Callable
from itertools import product
from pathlib import Path

import atheris
import numpy as np

with atheris.instrument_imports(include=["fruits", "PIL", "yaml", "safetensors"]):
    from PIL import Image
    from safetensors.numpy import save

    from fruits.clusters.load import load
    from fruits.errors import ModelError, OutputError, SettingsError, WeightsError
    from fruits.images.decode import ImageError, decode
    from fruits.jobs.identity import check_same
    from fruits.model.rows import decode_rows
    from fruits.model.scaled_pca import ScaledPCA
    from fruits.network.weight_files import read_tensors, rejecting_corrupt
    from fruits.storage.commits import last_commit
    from fruits.storage.folder import Folder

FOLDER = Path(tempfile.mkdtemp(prefix="fruits-fuzz-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
WRITTEN = {  # modes that Pillow writes, by format
    "JPEG": ("L", "RGB", "CMYK"),
    "PNG": ("L", "RGB", "RGBA", "P", "I;16"),
    "WEBP": ("RGB", "RGBA"),
    "BMP": ("L", "RGB", "P"),
    "TIFF": ("L", "RGB", "RGBA", "P", "CMYK", "I;16", "F"),
    "GIF": ("L", "P"),
}
LIMITS = ["-rss_limit_mb=1500", "-malloc_limit_mb=1000", "-timeout=20", "-max_len=65536"]


def image(data: bytes) -> None:
    try:
        decode(data, 32)
    except ImageError:
        return


def cluster_file(data: bytes) -> None:
    (FOLDER / "cluster.yaml").write_bytes(data)
    try:
        load(str(FOLDER / "cluster.yaml"), environ={})
    except SettingsError:
        return


def job_file(data: bytes) -> None:
    (FOLDER / "commits").mkdir(exist_ok=True)
    (FOLDER / "commits" / "00000001.json").write_bytes(data)
    folder = Folder(str(FOLDER))
    try:
        commit = last_commit(folder)
        assert commit is not None
        check_same(folder, commit, {"schema": "fruits.job/1", "plan": {"images": 1}}, ())
    except OutputError:
        return


def weights(data: bytes) -> None:
    (FOLDER / "weights").write_bytes(data)
    try:
        with rejecting_corrupt("here"):
            read_tensors(FOLDER / "weights")
    except WeightsError:
        return


def model(data: bytes) -> None:
    """Split at the first NUL into model.json and the arrays, with correct digests."""
    from tests.hostile.test_model import write_model

    try:
        write_model(FOLDER / "model", *data.partition(b"\0")[::2])
        ScaledPCA.load(str(FOLDER / "model"))
    except ModelError:
        return


def rows(data: bytes) -> None:
    from fruits.errors import OutputError

    try:
        decode_rows(data, "part-00000.csv")
    except OutputError:
        return


READERS: dict[str, Callable[[bytes], None]] = {
    "image": image,
    "cluster-file": cluster_file,
    "job-file": job_file,
    "weights": weights,
    "model": model,
    "rows": rows,
}


def seeds(reader: str) -> list[bytes]:
    """Return valid inputs of a reader."""
    from tests.hostile import pictures, test_model, test_spreadsheets

    if reader == "image":
        photo = Image.radial_gradient("L").resize((40, 30))
        return [
            pictures.encoded(photo.convert(mode), kind)
            for mode, kind in product(
                ("L", "RGB", "RGBA", "P", "CMYK", "I;16", "F"), ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
            )
            if mode in WRITTEN[kind]
        ]
    if reader == "cluster-file":
        return [Path("cluster.yaml").read_bytes()]
    if reader == "job-file":
        return [b'{"schema":"fruits.job/1","plan":{"images":1}}']
    if reader == "weights":
        return [save({"a/kernel": np.ones((3, 2), np.float32)})]
    if reader == "model":
        test_model.WHOLE.save(str(FOLDER / "whole"))
        return [(FOLDER / "whole" / "model.json").read_bytes() + b"\0" + test_model.arrays()]
    return [test_spreadsheets.encoded(["a/b.jpg", "c.jpg"], ["a", None])]


if __name__ == "__main__":
    reader, corpus = sys.argv[1], Path(sys.argv[2])
    if not corpus.exists():
        corpus.mkdir(parents=True)
        for number, seed in enumerate(seeds(reader)):
            (corpus / f"seed-{number}").write_bytes(seed)
    warnings.simplefilter("ignore")  # Pillow's warnings about metadata
    atheris.Setup([sys.argv[0], *LIMITS, str(corpus), *sys.argv[3:]], READERS[reader])
    atheris.Fuzz()
