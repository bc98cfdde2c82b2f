from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks.record import Record
from benchmarks.report import write_report
from tests.bench_records import WRONG, record, session

PLOTS = ["throughput", "stages", "growth", "memory", "solvers"]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench")
    assert write_report(folder, session()) == (folder / "report.html", folder / "report.md")
    return folder


def test_every_plot_has_a_wide_and_a_narrow_form_its_command_and_versions(written: Path) -> None:
    page = (written / "report.html").read_text()
    for name in PLOTS:
        section = page[page.index(f'<section id="{name}">') :].partition("</section>")[0]
        assert section.count("<svg ") == 2
        assert section.index('class="wide"') < section.index('class="narrow"')
        assert "fruits bench photos --out bench" in section
        assert "dask 2026.8.0" in section
    assert [path.stem for path in sorted((written / "plots").iterdir())] == sorted(PLOTS)


def test_the_page_is_self_contained(written: Path) -> None:
    page = (written / "report.html").read_text()
    assert not re.search(r"(src|href)=\"(?!#)", page)
    assert "@import" not in page
    assert "prefers-color-scheme: dark" in page
    ids = re.findall(r'<clipPath id="([^"]+)"', page)
    assert len(ids) == len(set(ids))  # a shared id would clip one plot to the area of another


def test_the_page_is_well_formed(written: Path) -> None:
    open_tags: list[str] = []
    faults: list[str] = []

    class Parser(HTMLParser):
        def handle_starttag(self, tag: str, attrs: object) -> None:
            if tag not in ("meta", "br"):
                open_tags.append(tag)

        def handle_endtag(self, tag: str) -> None:
            if open_tags.pop() != tag:
                faults.append(tag)

        def handle_startendtag(self, tag: str, attrs: object) -> None:
            pass

    Parser().feed((written / "report.html").read_text())
    assert (open_tags, faults) == ([], [])
    for path in (written / "plots").iterdir():
        assert ElementTree.fromstring(path.read_text()).tag.endswith("svg")


def test_page_and_text_show_the_ranking_and_the_unranked(written: Path) -> None:
    for name in ("report.html", "report.md"):
        text = (written / name).read_text()
        assert "Dask processes 352 images per second and Spark 346, on 2 cores: 86% of the network alone" in text
        assert re.search(r"Daft \+ Keras, 2 workers.*wrong answer: a cosine of 0.9", text)
        assert re.search(r"Ray Data \+ Keras, 2 workers.*not run: not installed: ray", text)
        assert "the same (noise)" in text
        assert "within 1e-05" in text
        assert "0.95 x" in text  # in the goals
        assert "Load average before the runs" in text or "the load average was" in text
    table = (written / "report.md").read_text().partition("## Images to features: 5,240 images")[2]
    names = re.findall(r"^\| (\d?) \| ([^|]+) \|", table.partition("##")[0], re.MULTILINE)
    assert names == [("", "network alone"), ("", "bare loop, no engine"), ("1", "Dask"), ("2", "Spark")]


def headline(records: list[Record], folder: Path) -> str:
    return write_report(folder, records)[1].read_text().splitlines()[0].removeprefix("# ")


def test_the_headline_compares_within_one_table(tmp_path: Path) -> None:
    # A peer of another table is not compared, although it is measured on the same machine.
    assert headline(session(), tmp_path).endswith("on 2 cores: 86% of the network alone")
    sides = [("featurize", "dask", 350), ("peer-ray-openvino", "ray_openvino", 140), ("peer-tfdata", "tfdata", 100)]
    one = [record(name, backend, rate=rate, repeat=repeat) for repeat in range(2) for name, backend, rate in sides]
    other = [record("peer-daft", "daft", rate=300, group="other tools", repeat=repeat) for repeat in range(2)]
    found = headline([*other, *one], tmp_path)
    assert found == "Dask processes 350 images per second, on 2 cores: 2.5 times Ray Data + OpenVINO"
    jobs = [
        record(name, backend, rate=rate, repeat=repeat, group="jobs", megapixels=12)
        for repeat in range(2)
        for name, backend, rate in (("run", "spark", 40), ("run-peer-spark-openvino", "spark_openvino", 20))
    ]
    found = headline(jobs, tmp_path)
    assert found.startswith(
        "Spark processes 40 images of 12 megapixels per second in whole jobs, on 2 cores: 2.0 times"
    )


def test_a_single_run_is_no_median_and_is_not_compared(tmp_path: Path) -> None:
    once = [record(), record(backend="spark", rate=200), record("peer-tfdata", "tfdata", rate=100)]
    page, text = (path.read_text() for path in write_report(tmp_path, once))
    assert text.startswith("# Dask processes 350 images per second and Spark 200, on 2 cores, in one run\n")
    for report in (page, text):
        assert "One run of each: no median, and no comparison" in report
        assert "Median" not in report.partition("Goals")[0].partition("Throughput")[0]
    assert len(re.findall(r"^\|  \|.*\| one run \|", text, re.MULTILINE)) == 3
    assert "missed" not in text
    assert "reached" not in text


def test_tables_have_distinct_titles(tmp_path: Path) -> None:
    sizes = [record(megapixels=size, group=f"featurize {size}") for size in (0.3, 3, 12)]
    others = [record(group="other tools"), record(group="one worker", workers=1), *session(1)]
    _, text = write_report(tmp_path, [*sizes, *others])
    titles = re.findall(r"^## (.*)", text.read_text(), re.MULTILINE)
    assert len(titles) == len(set(titles))
    assert "Images to features of 12 megapixels: 5,240 images" in titles
    assert {"Images to features (featurize): 5,240 images", "Images to features (other tools): 5,240 images"} < {
        *titles
    }


def test_fewer_partitions_than_workers_are_reported(tmp_path: Path) -> None:
    _, text = write_report(tmp_path, [record(images=300), record(images=2_000, group="more")])
    assert text.read_text().count("300 images in 1 partition of 512, so that 1 of the workers idle.") == 1
    assert "2,000 images in" not in text.read_text()


def test_other_load_on_the_machine_is_reported(written: Path, tmp_path: Path) -> None:
    page, text = write_report(tmp_path, [replace(one, busy=0.9) for one in session(1)])
    for name, path in (("report.html", page), ("report.md", text)):
        assert "90 % of its processors were busy" in path.read_text()
        assert "under other load" not in (written / name).read_text()


def test_text_from_records_is_escaped(tmp_path: Path) -> None:
    odd = replace(record(), command="fruits bench '<script>alert(1)</script>'")
    failed = record(backend="spark", status="failed", reason="<b>&", answer=None)
    page, _ = write_report(tmp_path, [odd, failed])
    assert "<script" not in page.read_text()
    assert "&lt;b&gt;&amp;" in page.read_text()


@pytest.mark.parametrize(
    "records",
    [
        [record("plan", "driver", workers=1, images=1_000)],
        [record()],
        [record(answer=WRONG)],
        [record("first-image", "dask", images=1)],
        [record("moments", "dask"), record("moments", "dask-ml", rate=10)],
        [record("peer-tfdata", "tfdata", rate=10)],
        [record(), record(backend="spark", status="failed", reason="died", answer=None)],
    ],
    ids=["plan", "one", "wrong", "first-image", "moments", "peer", "failed"],
)
def test_a_partial_session_can_be_reported(records: list[Record], tmp_path: Path) -> None:
    page, text = write_report(tmp_path, records)
    assert "How this was measured" in page.read_text()
    assert "How this was measured" in text.read_text()


def test_the_same_records_give_the_same_report(written: Path, tmp_path: Path) -> None:
    write_report(tmp_path, session())
    assert (tmp_path / "report.html").read_bytes() == (written / "report.html").read_bytes()
