"""Features of a column of images, in this process; `tests/conformance/test_frames.py` covers DataFrames."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import fruits
from fruits.errors import DatasetError
from fruits.jobs.tasks.columns import ColumnSettings, close_decoders, column_features, column_rows


@pytest.fixture(scope="module")
def settings() -> Iterator[ColumnSettings]:
    yield ColumnSettings.on_this_machine("MobileNetV2", "openvino", None, "reduced")
    close_decoders()


def encoded(colour: str, kind: str) -> bytes:
    file = BytesIO()
    Image.new("RGB", (40, 30), colour).save(file, kind)
    return file.getvalue()


def test_an_image_that_crashes_the_decoder_is_an_error_of_its_row(
    settings: ColumnSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import os\nfrom PIL.BmpImagePlugin import BmpImageFile\nBmpImageFile.load = lambda _: os.abort()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    close_decoders()
    png = encoded("red", "PNG")
    features, errors = column_features([encoded("red", "BMP"), png, None, b"no image"], settings)
    close_decoders()
    assert np.array_equal(np.array(features[1].as_py(), np.float32), fruits.features(png)[0])
    crashed, *others = errors.to_pylist()
    assert "SIGABRT" in crashed
    assert [features.null_count, *others[:2], others[2].split(":")[0]] == [3, None, None, "not-an-image"]


def test_an_interrupted_image_does_not_become_the_next_one(
    settings: ColumnSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("fruits.images.isolation._receive", interrupted)
        with pytest.raises(KeyboardInterrupt):
            column_features([encoded("red", "PNG")], settings)
    features, _ = column_features([encoded("blue", "PNG")], settings)
    assert np.array_equal(np.array(features[0].as_py(), np.float32), fruits.features(encoded("blue", "PNG"))[0])


def test_texts_that_are_no_unicode_are_read_as_names_or_rejected(settings: ColumnSettings) -> None:
    _, errors = column_features(["a\ud800", "nonsuch://\udcff", "/nowhere/\udcff"], settings)
    assert all(text.startswith("unreadable: ") for text in errors.to_pylist())


@pytest.mark.parametrize("values", [[np.zeros((2, 2))], [[1.0], "x"], ["x"]])
def test_columns_without_vectors_are_an_error(values: list[Any]) -> None:
    with pytest.raises(DatasetError, match=r"the column contains no vectors: .* Allowed: lists of numbers"):
        column_rows(pd.Series(values), None)  # type: ignore[arg-type]  # the model is used last


@pytest.mark.parametrize(("values", "kinds"), [([b"a", "b"], "bytes, str"), (["a", 1], "int, str"), ([2.5], "float")])
def test_values_of_other_types_are_an_error(settings: ColumnSettings, values: list[Any], kinds: str) -> None:
    with pytest.raises(DatasetError, match=rf"values of type {kinds}\. Allowed: only the contents of images"):
        column_features(values, settings)
