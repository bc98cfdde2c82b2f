from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.cases import Case, Group
from benchmarks.measure.sets import SETS, named_groups, set_groups
from benchmarks.report.changes import changes
from benchmarks.report.goals import goals
from benchmarks.report.summary import noise, noise_of, ranking, sides, verdict
from benchmarks.scenarios import EQUAL, SCENARIOS, load
from fruits.errors import SettingsError
from tests.bench_records import WRONG, record, session


def test_cases_take_turns_and_the_first_is_its_own_control() -> None:
    a, b = (Case(scenario="featurize", backend=name, workers=2, images=10) for name in ("dask", "spark"))
    turns = Group("featurize", (a, b), repeats=2).turns()
    assert turns == [(a, 0, False), (b, 0, False), (a, 0, True), (a, 1, False), (b, 1, False), (a, 1, True)]
    assert Group("featurize", (a, b), repeats=1, control=False).turns() == [(a, 0, False), (b, 0, False)]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([10.0, 10.0, 10.0, 10.0], 0.0),
        ([10.0, 11.0], 1 / 10.5),
        ([10.0, 10.0, 11.0, 11.0], 1 / 10.5),  # the split {10, 10} and {11, 11}
        ([10.0, 10.0, 10.0, 10.0, 10.0, 99.0], 0.0),  # a single disturbed run does not move the median
        ([5.0], 0.0),
    ],
)
def test_noise_is_the_largest_difference_of_medians_by_chance(values: list[float], expected: float) -> None:
    assert noise(values) == pytest.approx(expected)


@given(st.lists(st.floats(1, 100), min_size=2, max_size=10))
def test_noise_does_not_depend_on_order_or_unit(values: list[float]) -> None:
    assert noise(values) == pytest.approx(noise(sorted(values)))
    assert noise(values) == pytest.approx(noise([1000 * value for value in values]))
    assert 0 <= noise(values) <= (max(values) - min(values)) / min(values)


def test_a_difference_within_the_noise_is_called_the_same() -> None:
    assert verdict(1.02, 0.03) == "the same (noise)"
    assert verdict(0.98, 0.03) == "the same (noise)"
    assert verdict(1.04, 0.03) == "1.04 x"
    assert verdict(0.5, 0.03) == "0.50 x"
    assert verdict(1.02, None) == "1.02 x (noise unknown)"


def test_the_noise_of_a_group_comes_from_its_control() -> None:
    quiet = [record(rate=rate, group="a", control=control) for rate in (100, 101) for control in (False, True)]
    loud = [record(rate=rate, group="b", control=control) for rate in (100, 150) for control in (False, True)]
    without = [record(group="c")]
    records = [*quiet, *loud, *without]
    assert noise_of(records, "a") == pytest.approx(noise([1 / 100, 1 / 100, 1 / 101, 1 / 101]))
    assert noise_of(records, "c") == noise_of(records) == noise_of(records, "b")
    assert noise_of(without) is None


def test_the_fastest_ranks_first_and_a_fast_wrong_answer_is_not_ranked() -> None:
    found = [side for side in sides(session()) if side.group == "other tools"]
    assert max(found, key=lambda side: side.rate.median if side.done else 0).case.scenario == "peer-daft"
    assert [side.case.scenario for side in ranking(found)] == ["featurize", "featurize", "peer-tfdata", "peer-notebook"]
    faults = {side.case.scenario: side.fault for side in found if not side.ranked}
    assert faults == {"peer-daft": "wrong answer: a cosine of 0.9", "peer-ray": "not run: not installed: ray"}


def test_one_wrong_answer_excludes_a_case() -> None:
    (side,) = sides([record(repeat=0), record(repeat=1, answer=WRONG), record(repeat=2)])
    assert not side.ranked
    assert ranking([side]) == []


def test_only_changes_beyond_the_noise_are_reported() -> None:
    def measured(dask: float, spark: float) -> list[object]:
        return [
            record(backend=backend, rate=rate * shake, repeat=repeat, control=control)
            for repeat, shake in enumerate((0.99, 1.0, 1.01))
            for backend, rate, control in (("dask", dask, False), ("spark", spark, False), ("dask", dask, True))
        ]

    found = {change.name: change for change in changes(measured(300, 300), measured(301, 360))}  # type: ignore[arg-type]
    assert found["featurize on dask, 2 workers"].verdict == "the same"
    assert found["featurize on spark, 2 workers"].verdict == "faster"
    assert found["featurize on spark, 2 workers"].speed == pytest.approx(1.2)
    (slower,) = changes([record(rate=300)], [record(rate=100)])
    assert slower.verdict == "unknown"
    (wrong,) = changes([record(rate=300)], [record(rate=900, answer=WRONG)])
    assert wrong.verdict == "wrong answer: a cosine of 0.9"
    assert changes([record(images=10)], [record(images=20)]) == []


def test_goals_are_computed_and_judged_only_at_sufficient_sizes() -> None:
    found = {goal.name: goal for goal in goals(session())}
    bare = found["featurize on dask ÷ bare-loop"]
    assert bare.measured == pytest.approx(352 / 371)
    assert (bare.met, bare.on) == ("met", "5,240")
    assert found["featurize on spark ÷ peer-tfdata"].measured == pytest.approx(338 / 122)
    assert not any("daft" in name for name in found)  # its answer is wrong
    assert found["run on dask ÷ run-peer-notebook, start-up included"].met == "fewer"
    assert found["from command to first image on spark"].met == "stretch"
    growth = found["seconds per 1,000 images on dask, growth"]
    assert growth.on == "5,240 → 10,480"
    assert growth.measured == pytest.approx(352 / (183 * 1.93) - 1)


def test_every_case_of_a_set_is_run_at_least_three_times_and_peers_share_a_table_with_equal_runtimes() -> None:
    for name in SETS:
        groups = set_groups(name, 2)
        assert min(group.repeats for group in groups) >= 3
        assert not any(case.idle for group in groups for case in group.cases)
        (main,) = [group for group in groups if group.name == "featurize"]
        assert {"featurize", "ceiling", *EQUAL} <= {case.scenario for case in main.cases}


@pytest.mark.parametrize(("images", "workers", "warns"), [(512, 2, True), (513, 2, False), (512, 1, False)])
def test_fewer_partitions_than_workers_are_a_warning(images: int, workers: int, warns: bool) -> None:
    case = Case(scenario="run", backend="dask", workers=workers, images=images)
    assert bool(case.idle) is warns
    assert not Case(scenario="peer-ray", backend="ray", workers=8, images=1).idle


@pytest.mark.parametrize("name", SETS)
def test_every_set_consists_of_known_scenarios_and_backends(name: str) -> None:
    groups = set_groups(name, 2)
    assert len({group.name for group in groups}) == len(groups)
    for case in (case for group in groups for case in group.cases):
        assert case.scenario in SCENARIOS
        assert case.backend in load(case.scenario).backends
    if name != "quick":
        assert {case.scenario for group in groups for case in group.cases} >= {
            "featurize",
            "run",
            "ceiling",
            "peer-ray",
        }


def test_each_number_of_images_is_a_group() -> None:
    groups = named_groups(
        scenarios=["featurize", "ceiling"],
        backends=["dask", "spark"],
        workers=[1, 2],
        images=[100, 200],
        repeats=3,
        partition_size=64,
        components=10,
    )
    assert [(group.repeats, len(group.cases)) for group in groups] == [(3, 6), (3, 6)]
    assert [case.name for case in groups[0].cases] == [
        "featurize on dask, 1 worker",
        "featurize on dask, 2 workers",
        "featurize on spark, 1 worker",
        "featurize on spark, 2 workers",
        "ceiling on processes, 1 worker",
        "ceiling on processes, 2 workers",
    ]


def test_each_size_of_images_is_a_group() -> None:
    groups = named_groups(
        scenarios=["featurize", "peer-tfdata"],
        backends=["dask"],
        workers=[2],
        images=[100],
        repeats=3,
        partition_size=64,
        components=10,
        megapixels=[0.3, 12],
    )
    assert [group.name for group in groups] == [
        "featurize, peer-tfdata 100 at 0.3 MP",
        "featurize, peer-tfdata 100 at 12 MP",
    ]
    assert [case.name for case in groups[1].cases] == [
        "featurize on dask at 12 MP, 2 workers",
        "peer-tfdata at 12 MP, 2 workers",
    ]


@pytest.mark.parametrize(
    ("scenarios", "backends", "message"),
    [(["nothing"], [], "--scenario nothing"), (["featurize"], ["ray"], "--backend ray"), (["peer-x"], [], "peer-x")],
)
def test_unknown_names_are_rejected(scenarios: list[str], backends: list[str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        named_groups(
            scenarios=scenarios, backends=backends, workers=[1], images=[], repeats=1, partition_size=1, components=1
        )
    with pytest.raises(SettingsError, match="--set nothing"):
        set_groups("nothing", 2)
