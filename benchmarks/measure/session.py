"""A session: prepare the inputs, run the cases in turn and append a record after each run."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import psutil

from benchmarks.answers.check import check
from benchmarks.answers.reference import Reference, fit_parts, read_parts
from benchmarks.cases import Case, Group
from benchmarks.inputs.features import generated_features
from benchmarks.inputs.images import Originals, drop_from_cache, read_once
from benchmarks.measure.machine import ROOT, commit, machine, versions
from benchmarks.measure.process_tree import Usage, watch
from benchmarks.record import Record, append
from benchmarks.scenarios import load, missing
from benchmarks.scenarios.task import Task
from fruits.errors import JobError, SettingsError
from fruits.machine.cpus import available_cpus
from fruits.network.featurizer import compile_network

MOST_ORIGINALS = 5_240  # the reference is computed for these alone; larger sets repeat them
TIMEOUT = 7_200.0  # seconds per run
BUSY_SECONDS = 0.5  # over which the CPU load is measured before a run
LOG_LINES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """Measurement of groups of cases on this machine.

    Attributes
    ----------
    images : str or None
        Folder of the original images, ``<label>/<file>.jpg``; None if no scenario needs images.
    out : Path
        Folder of the records, logs and cached inputs.
    command : str
        Command line, for the records.
    cold : bool, default False
        Drop the images from the page cache before each run.
    notify : callable
        Called with one line of text after each step.
    """

    images: str | None
    out: Path
    command: str
    cold: bool = False
    notify: Callable[[str], None] = print

    def measure(self, groups: Sequence[Group]) -> None:
        """Run every group and append one record per run to ``records.jsonl``.

        Raises
        ------
        SettingsError
            A scenario needs images and none were given.
        JobError
            The reference run, on the local backend, failed.
        """
        cases = [case for group in groups for case in group.cases if load(case.scenario).data == "images"]
        counts = [case.images for case in cases]
        if counts and self.images is None:
            raise SettingsError("this scenario works on images. Give their folder: fruits bench IMAGES --out FOLDER.")
        (self.out / "logs").mkdir(parents=True, exist_ok=True)
        session = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        originals = (
            None if self.images is None else Originals.below(self.images, min(MOST_ORIGINALS, max(counts, default=1)))
        )
        sizes = {} if originals is None else {case.megapixels: self._enlarged(originals, case) for case in cases}
        references = {size: self._reference(photos) for size, photos in sizes.items()}
        for case in dict.fromkeys(case for group in groups for case in group.cases if case.idle):
            self.notify(f"warning: {case.idle}")
        total, number = sum(len(group.turns()) for group in groups), 0
        for group in groups:
            absent = {case: reason for case in group.cases if (reason := missing(case))}
            for case, reason in absent.items():
                record = self._record(session, group.name, case)
                append(self.out, replace(record, status="not run", reason=reason))
                self.notify(f"{case.name}: not run: {reason}")
            data = {case: self._data(case, sizes.get(case.megapixels)) for case in group.cases if case not in absent}
            for case, repeat, control in group.turns():
                number += 1
                if case in absent:
                    continue
                record = replace(self._record(session, group.name, case), repeat=repeat, control=control)
                record = self._run(record, data[case], references.get(case.megapixels))
                append(self.out, record)
                self.notify(f"[{number}/{total}] {_summary(record)}")

    def _record(self, session: str, group: str, case: Case) -> Record:
        return Record(
            session=session,
            group=group,
            at=datetime.now(UTC).isoformat(timespec="seconds"),
            commit=commit(),
            command=self.command,
            versions=versions(),
            machine=machine(),
            case=case,
            repeat=0,
            cold=self.cold,
        )

    def _enlarged(self, originals: Originals, case: Case) -> Originals:
        return originals.enlarged(case.megapixels, self._cache) if case.megapixels else originals

    def _reference(self, originals: Originals) -> Reference:
        """Return the features of the originals, computed in a run on the local backend or cached from one."""
        folder = self._cache / f"reference-{originals.digest[:8]}"
        about = {"network": compile_network("MobileNetV2").digest, "commit": commit()}
        if not (folder / "about.json").exists() or orjson.loads((folder / "about.json").read_bytes()) != about:
            shutil.rmtree(folder, ignore_errors=True)
            count = len(originals.names)
            case = Case(scenario="featurize", backend="local", workers=available_cpus(), images=count)
            self.notify(f"reference: {case.name}, {case.images:,} images")
            log = self.out / "logs" / "reference.txt"
            data = originals.repeated(count, self._cache)
            if self._execute(Task(case=case, data=str(data), out=str(folder)), log)[1] is None:
                raise JobError(f"the reference run failed. See {log}.")
            (folder / "about.json").write_bytes(orjson.dumps(about))
        return Reference(folder / "features")

    @property
    def _cache(self) -> Path:
        return (self.out / "cache").resolve()

    def _data(self, case: Case, originals: Originals | None) -> Path:
        """Return the input folder of a case, complete and read once."""
        kind = load(case.scenario).data
        if kind == "keys":
            return self._cache
        if kind == "features":
            return generated_features(case.images, self._cache)
        assert originals is not None
        folder = originals.repeated(case.images, self._cache)
        read_once(folder)
        return folder

    def _run(self, record: Record, data: Path, reference: Reference | None) -> Record:
        """Run the case of a record, check its answer and return the completed record."""
        case = record.case
        scenario = load(case.scenario)
        out = self._cache / "run"
        shutil.rmtree(out, ignore_errors=True)
        model = self._model(case, data, reference)
        if self.cold and scenario.data == "images":
            drop_from_cache(data)
        busy = psutil.cpu_percent(BUSY_SECONDS) / 100
        load_average = os.getloadavg()[0]
        name = f"{record.session}-{record.group}-{case.name}-{record.repeat}{'-control' * record.control}"
        log = self.out / "logs" / f"{name.replace(' ', '_').replace(',', '')}.txt"
        usage, result = self._execute(Task(case=case, data=str(data), out=str(out), model=str(model or "")), log)
        record = replace(
            record,
            load=round(load_average, 2),
            busy=round(busy, 3),
            steal=round(usage.steal, 4),
            driver_peak=usage.driver_peak,
            worker_peak=usage.worker_peak,
            java_peak=usage.java_peak,
            tree_peak=usage.tree_peak,
            cpu_seconds=round(usage.cpu_seconds, 2),
            wall=round(usage.wall, 3),
        )
        if result is None:
            reason = f"timed out after {TIMEOUT:,.0f} s" if usage.exit_code is None else _tail(log)
            return replace(record, status="failed", reason=reason)
        seconds = {stage: round(taken, 4) for stage, taken in result["seconds"].items()}
        wall = usage.wall - result["unmeasured"]
        seconds["shutdown"] = round(max(0.0, wall - sum(seconds.values())), 4)
        record = replace(
            record,
            seconds=seconds,
            worker_seconds={step: round(taken, 3) for step, taken in result["worker_seconds"].items()},
            wall=round(wall, 3),
            bytes_written=_bytes_written(out),
            answer=check(case, scenario.answer, data, out, reference, model),
        )
        shutil.rmtree(out)
        return record

    def _model(self, case: Case, data: Path, reference: Reference | None) -> Path | None:
        """Return the cached fitted model that a case needs."""
        if case.scenario not in ("transform", "csv"):
            return None
        folder = self._cache / f"model-{data.name}-{case.components}"
        if not (folder / "model.json").exists():
            if reference is not None and case.scenario == "transform":
                network = compile_network("MobileNetV2")
                identity = {"backbone": network.backbone, "engine": network.engine, "weights": network.weights_digest}
                fitted = reference.model(data, case.components)
                replace(fitted, network=identity).save(str(folder))
            else:
                fit_parts(read_parts(data / "features"), case.components).save(str(folder))
        return folder

    def _execute(self, task: Task, log: Path) -> tuple[Usage, dict[str, Any] | None]:
        """Run a task in its own process; return its resource usage and its result, None if it failed."""
        request, result = self.out / "task.json", self.out / "result.json"
        request.write_bytes(task.to_json())
        result.unlink(missing_ok=True)
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))}
        command = [sys.executable, "-m", "benchmarks.measure.child", str(request.absolute()), str(result.absolute())]
        usage = watch(command, env=env, log=log, timeout=TIMEOUT)
        values = orjson.loads(result.read_bytes()) if usage.exit_code == 0 else None
        request.unlink()
        result.unlink(missing_ok=True)
        return usage, values


def _summary(record: Record) -> str:
    name = f"{record.case.name}, {record.case.images:,}{' (control)' * record.control}"
    if record.status != "done":
        return f"{name}: {record.status}: {record.reason}"
    answer = "" if record.answer is None else f", answer {record.answer.verdict}"
    return f"{name}: {record.work:.2f} s, {record.images_per_second:,.1f}/s, whole {record.wall:.1f} s{answer}"


def _bytes_written(out: Path) -> int:
    return sum(path.stat().st_size for path in out.rglob("*") if path.is_file() and not path.is_symlink())


def _tail(log: Path) -> str:
    lines = [line for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
    return " ".join(" ".join(lines[-LOG_LINES:]).split())[-400:] or "no output"
