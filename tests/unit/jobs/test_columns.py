"""Features of a column of images, in this process; `tests/conformance/test_frames.py` covers DataFrames."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image

import fruits
from fruits.errors import DatasetError
from fruits.jobs.tasks.columns import ColumnSettings, column_features


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


@pytest.mark.parametrize(("values", "kinds"), [([b"a", "b"], "bytes, str"), (["a", 1], "int, str"), ([2.5], "float")])
def test_values_of_other_types_are_an_error(settings: ColumnSettings, values: list[Any], kinds: str) -> None:
    with pytest.raises(DatasetError, match=rf"values of type {kinds}\. Allowed: only the contents of images"):
        column_features(values, settings)
