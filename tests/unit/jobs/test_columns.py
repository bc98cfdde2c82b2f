"""Features of a column of images, in this process; `tests/conformance/test_frames.py` covers DataFrames."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import fruits
from fruits.errors import DatasetError
from fruits.jobs.tasks.columns import ColumnSettings, column_features, column_rows


@pytest.fixture(scope="module")
def settings() -> ColumnSettings:
    return ColumnSettings.on_this_machine("MobileNetV2", "openvino", None, "reduced")


def test_images_of_a_retried_task_are_decoded_in_another_process(
    settings: ColumnSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    png = BytesIO()
    Image.new("RGB", (40, 30), "red").save(png, "PNG")
    monkeypatch.setattr("fruits.jobs.tasks.columns.decode_crops", None)
    features, errors = column_features([png.getvalue(), None, b"no image"], settings, isolated=True)
    assert np.array_equal(np.array(features[0].as_py(), np.float32), fruits.features(png.getvalue())[0])
    assert features.to_pylist()[1:] == [None, None]
    assert errors.to_pylist()[:2] == [None, None]
    assert errors[2].as_py().startswith("not-an-image: ")


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
