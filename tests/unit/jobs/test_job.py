import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest

from fruits.errors import SettingsError
from fruits.jobs.job import Job


def test_a_job_is_frozen():
    job = Job(images="images", out="out")
    with pytest.raises(dataclasses.FrozenInstanceError):
        job.out = "elsewhere"


@pytest.mark.parametrize("components", [1, 200, 0.5, 0.999])
def test_valid_components_are_accepted(components):
    assert Job(images="i", out="o", components=components).components == components


@pytest.mark.parametrize(
    ("setting", "value", "says"),
    [
        ("components", 0, "`components` = 0"),
        ("components", -3, "`components` = -3"),
        ("components", 1.5, "`components` = 1.5"),
        ("components", 1.01, "`components` = 1.01"),
        ("components", 0.0, "`components` = 0.0"),
        ("components", float("nan"), "`components` = nan"),
        ("components", True, "`components` = True"),
        ("components", "abc", "`components` = abc"),
        ("backbone", "VGG99", "MobileNetV2"),
        ("engine", "onnx", "openvino, tensorflow"),
        ("decode", "half", "`decode` = half: not known. Allowed: reduced, full."),
        ("crops", 0, "`crops` = 0: not allowed. Allowed: 1 or more, up to 2."),
        ("crops", 3, "`crops` = 3"),
        ("solver", "magic", "exact, native"),
        ("format", "xml", "parquet, csv"),
        ("columns", ("path", "colour"), "`columns` = colour: not known. Allowed: path, label"),
        ("columns", (), "at least one"),
        ("columns", ("path", "path"), "each once"),
        ("partition_size", 0, "`partition_size` = 0"),
        ("limit", 0, "`limit` = 0"),
        ("sample", 0, "`sample` = 0"),
        ("max_reject_fraction", 1.5, "`max_reject_fraction` = 1.5"),
        ("max_reject_fraction", float("nan"), "`max_reject_fraction` = nan"),
        *(
            ("shards", value, f"`shards` = {value}: not allowed")
            for value in ("0/4", "5/4", "x", "1/0", "", "-1/4", "1")
        ),
    ],
)
def test_invalid_settings_are_refused_with_the_allowed_values(setting, value, says):
    with pytest.raises(SettingsError, match=re.escape(says)) as caught:
        Job(images="i", out="o", **{setting: value})
    assert "llowed" in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"seed": 1}, "`seed` = 1: not allowed without `sample`"),
        ({"sample": 5, "limit": 5}, "`limit` with `sample`"),
        (
            {"sample": 5, "seed": 2**63},
            "`seed` = 9223372036854775808: not allowed. Allowed: -9,223,372,036",
        ),
    ],
)
def test_seed_needs_a_sample_and_a_sample_excludes_a_limit(settings, says):
    with pytest.raises(SettingsError, match=says):
        Job(images="i", out="o", **settings)


def test_path_objects_and_numbers_of_numpy_are_converted():
    job = Job(
        images=Path("photos/Training"),
        out=Path("out"),
        model=Path("model"),
        components=np.int64(5),
        limit=np.int32(12),
        max_reject_fraction=np.float32(0.5),
        columns=["path"],
    )
    same = Job(
        images="photos/Training",
        out="out",
        model="model",
        components=5,
        limit=12,
        max_reject_fraction=0.5,
        columns=["path"],
    )
    assert job == same
    assert [type(getattr(job, name)) for name in ("images", "components", "limit")] == [str, int, int]
    assert type(Job(images="i", out="o", components=np.float64(0.5)).components) is float


@pytest.mark.parametrize(
    ("setting", "value", "says"),
    [
        ("images", b"photos", "`images` = b'photos': not allowed. Allowed: a local path, or a URL as text."),
        ("out", None, "`out` = None: not allowed"),
        ("weights", 3, "`weights` = 3: not allowed"),
        ("partition_size", 8.0, "`partition_size` = 8.0: not allowed. Allowed: a whole number."),
        ("limit", True, "`limit` = True: not allowed"),
        ("overwrite", "no", "`overwrite` = 'no': not allowed. Allowed: True or False."),
        ("columns", 5, "`columns` = 5: not allowed. Allowed: names, as ('path', 'label')."),
        ("columns", ("path", None), "`columns` = ('path', None): not allowed. Allowed: names"),
        ("seed", None, "`seed` = None: not allowed. Leave it out for its default, 0."),
        ("format", None, "`format` = None: not allowed. Leave it out for its default, 'parquet'."),
        ("backbone", ["ResNet50"], "`backbone` = ['ResNet50']: not known. Allowed: MobileNetV2"),
        ("shards", Path("1"), "`shards` = 1: not allowed. Allowed: i/n"),
        ("columns", "label", "`columns` = 'label': not allowed. Allowed: names, as ('label',)."),
    ],
)
def test_value_of_another_type_is_refused(setting, value, says):
    with pytest.raises(SettingsError, match=re.escape(says)):
        Job(**{"images": "i", "out": "o", setting: value})


def test_a_slice_cannot_overwrite():
    with pytest.raises(SettingsError, match=r"`overwrite` with `shards` 2/4"):
        Job(images="i", out="o", shards="2/4", overwrite=True)


def test_repr_of_a_job_shows_the_settings_that_were_given_and_no_secret():
    job = Job(images="http://me:pa55@host/x", out="o", components=20, columns=("path",))
    assert repr(job) == "Job(images='http://***@host/x', out='o', components=20, columns=('path',))"
