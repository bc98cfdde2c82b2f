"""Train a recogniser on an executor: summaries of the sources on workers, the recogniser on the driver.

::

    SOURCE... → featurize image folders → claim the folder of the recogniser
                │
                ▼
              summaries (map, level by level) → moments/ → train → pictures (map) → recogniser.json → commit

The folder belongs to one training, as an output to one job: its commits name the owner, and another training needs
`overwrite`. A killed training resumes with the nodes that are stored; a finished one is verified. See
:mod:`fruits.recogniser.jobs.summaries` and :mod:`fruits.recogniser.training.training` for memory and traffic. The
pictures, at most 8,192 or one a label, of 3 kB each, are returned to the driver.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from fruits.errors import DamageError, JobError, OutputError
from fruits.executor import Executor, check_executor
from fruits.jobs.identity import check_same, is_same, versions
from fruits.jobs.output import storage_errors
from fruits.jobs.report import REPORT
from fruits.jobs.reporting.write import add_page
from fruits.jobs.stages import Stage, StageRunner
from fruits.jobs.tasks.thumbnails import batches, make_pictures, picture_source
from fruits.model.fingerprint import solver_fingerprint
from fruits.progress.reporter import Progress
from fruits.progress.select import default
from fruits.recogniser.files import StoredRecogniser, read_recogniser, write_recogniser
from fruits.recogniser.jobs.classes import check_labels, read_classes
from fruits.recogniser.jobs.report import write_page
from fruits.recogniser.jobs.request import Training
from fruits.recogniser.jobs.sources import SOURCES, FeatureSource, open_sources
from fruits.recogniser.jobs.summaries import summarize
from fruits.recogniser.training import training as training_core
from fruits.recogniser.training.fitting import Source
from fruits.recogniser.training.records import picture_key, stored_recogniser
from fruits.recogniser.training.sample import rows_per_label
from fruits.storage.checksums import MANIFEST, CorruptPartError, Manifest, read_part
from fruits.storage.commits import COMMITS, Commit, OwnedFolder, claim, complete, last_commit
from fruits.storage.folder import Folder, is_temporary
from fruits.text import without_secrets

SCHEMA = "fruits.training/1"
NODES = "moments"
OUTPUTS = "outputs"  # in the commit: where the features of the sources are
TEST = "test"  # the evaluation on `Training.test`, below the recogniser


@dataclass(frozen=True, slots=True)
class TrainingReport:
    """The result of a training.

    Attributes
    ----------
    out, version : str
        The folder and the version of the recogniser.
    classes : int
        The number of classes.
    images : int
        The images of the classes that it was trained on.
    unmapped : int or None
        The labels that the file of classes does not contain; None without a file.
    prototypes, pictures : int
        The number of prototypes, and of pictures of the training images nearest to them.
    calibration_images : int
        The held-out images that temperature and thresholds were chosen on.
    sources : list of dict
        ``address``, ``images``, ``rejects`` and ``weight`` of each source.
    seconds : dict of str to float
        The duration of each stage on the driver; empty if the recogniser was complete.
    """

    out: str
    version: str
    classes: int
    images: int
    unmapped: int | None
    prototypes: int
    pictures: int
    calibration_images: int
    sources: list[dict[str, Any]]
    seconds: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-compatible values."""
        return dataclasses.asdict(self)


def train(training: Training, executor: Executor, *, progress: Progress | None = None) -> TrainingReport:
    """Train a recogniser, and store it in ``training.out``.

    Parameters
    ----------
    training : Training
    executor : fruits.Executor
        The engine that does the work; see :func:`backends.load`.
    progress : fruits.progress.reporter.Progress, optional
        The progress listener; default: a bar in a notebook, else silent.

    Raises
    ------
    InputError
        An input cannot be used.
    JobError
        The training failed. Finished work is kept: the same call resumes it.
    """
    check_executor(executor)
    listener = progress or default()
    mapping = {} if training.classes is None else read_classes(training.classes)
    with storage_errors(training.out):
        out = Folder.at(training.out)
        out.check()
        _check_folder(out)
        sources = open_sources(training, executor, listener)
        identity = _identity(training, sources, mapping)
        commit = _claim_or_resume(training, out, identity)
        stored, runner = _intact(out, commit), StageRunner(executor, listener)
        if stored is None:
            stored = _Run(training, sources, mapping, commit, out, runner).execute()
        else:
            listener.note("the recogniser was complete already; all its files were verified")
        seconds = {name: round(value, 3) for name, value in runner.seconds.items()}
        if training.report:
            add_page(OwnedFolder(out, commit.owner, commit.number), runner, write_page)
    return _report(training, stored, mapping, seconds)


def _check_folder(out: Folder) -> None:
    """Raise if a folder contains anything but a recogniser."""
    names = [name for name in out.names() if not is_temporary(name)]
    if COMMITS not in names:
        if others := [name for name in names if name != SOURCES]:
            raise OutputError(
                f"`out` {out.address} contains other files ({', '.join(others[:3])}) and no recogniser. "
                "Give an empty folder, or one that does not exist yet."
            )
        return
    current = last_commit(out)
    if current is not None and current.job["command"] != "train":
        raise OutputError(f"`out` {out.address} contains the output of a job. Give another folder for the recogniser.")


def _identity(training: Training, sources: Sequence[FeatureSource], mapping: Mapping[str, str]) -> dict[str, Any]:
    """Return everything that determines the recogniser, thus neither backend nor partitions; and the outputs."""
    features = sources[0].features
    described = {
        str(number): {
            "images": source.images,
            "list": dataclasses.asdict(source.job.plan.list),
            "moments": source.job.moments_digest,
            "weight": source.weight,
            "unknown": source.is_unknown,
            "backgrounds": source.features.get("backgrounds"),
        }
        for number, source in enumerate(sources, 1)
    }
    digest = hashlib.sha256(orjson.dumps(dict(mapping), option=orjson.OPT_SORT_KEYS)).hexdigest()
    return {
        "schema": SCHEMA,
        "command": "train",
        "sources": described,
        "crops": training.crops,
        "method": training.method,
        "classes": digest if mapping else None,
        "features": {name: features[name] for name in ("network", "length", "decode", "fingerprint")},
        "eigenvectors": solver_fingerprint(),
        "versions": versions(),
        OUTPUTS: [without_secrets(source.job.owned.folder.address) for source in sources],
    }


def _claim_or_resume(training: Training, out: Folder, identity: dict[str, Any]) -> Commit:
    """Return the last commit of this training, which claims the folder if it is new."""
    while True:
        current = last_commit(out)
        # The same features in another output give the same recogniser.
        requested = identity | {OUTPUTS: current.job.get(OUTPUTS)} if current is not None else identity
        if current is not None and is_same(current.job, requested):
            return current
        if current is not None and not training.overwrite:
            check_same(out, current, requested, ())
        claimed = claim(out, identity, {}, (current.number if current is not None else 0) + 1)
        if claimed is not None:
            return claimed


def _intact(out: Folder, commit: Commit) -> StoredRecogniser | None:
    """Return the recogniser of a complete commit; None if it is incomplete, or a file is missing or corrupt."""
    if not commit.complete:
        return None
    try:
        for name, known in commit.files.items():
            read_part(out, name, bytes.fromhex(known))
    except CorruptPartError:
        return None
    return read_recogniser(out)


@dataclass(frozen=True, slots=True)
class _Run:
    """The stages of one training on a folder that it owns."""

    training: Training
    sources: Sequence[FeatureSource]
    mapping: Mapping[str, str]
    commit: Commit
    out: Folder
    runner: StageRunner

    @property
    def owned(self) -> OwnedFolder:
        return OwnedFolder(self.out, self.commit.owner, self.commit.number)

    def execute(self) -> StoredRecogniser:
        """Train; if this fails because another process completed the same training, return its recogniser."""
        try:
            return self._execute()
        except JobError:
            last = self.owned.check_owner()  # the nodes of a superseded training were removed by another one
            stored = None if self.commit.complete or last is None else _intact(self.out, last)
            if stored is None:
                raise
            return stored

    def _execute(self) -> StoredRecogniser:
        summaries = self._summaries()
        with self.runner.timed("train"):
            trained = training_core.train(summaries, self.training.method)
        pictures = self._pictures(trained)
        features = self.sources[0].features
        network = {**features["network"], "decoding": features["decode"]}
        stored = stored_recogniser(trained, summaries, [_origin(source) for source in self.sources], network, pictures)
        self._store(stored)
        return read_recogniser(self.out)

    def _summaries(self) -> list[Source]:
        """Return the summaries of the sources, with the class of each label."""
        manifest = Manifest.load(self.owned)
        labels = sum(max(1, source.job.plan.labels) for source in self.sources)
        row_bytes = 4 * int(self.sources[0].features["length"]) * self.training.crops
        most = rows_per_label(labels, row_bytes)
        summaries = []
        for number, source in enumerate(self.sources):
            summary = summarize(source, number, self.training.crops, most, self.owned, manifest, self.runner)
            rows, images, rejects = summary.fit.count + summary.held_out.count, source.job.plan.images, source.rejects
            if rows != (images - rejects) * self.training.crops:
                raise DamageError(
                    f"{source.job.owned.folder.address}: {images:,} images are listed and {rejects:,} "
                    f"are rejects, but its features have {rows // self.training.crops:,} rows. Run fruits verify."
                )
            own = [label or "" for label in (*summary.fit.classes, *summary.held_out.classes)]
            classes = None if source.is_unknown else {label: label for label in own} | dict(self.mapping)
            summaries.append(Source(*summary, source.weight, classes))
        if self.training.classes is not None:
            known = {label for each in summaries if each.classes is not None for label in _labels(each)}
            check_labels(self.training.classes, self.mapping, known)
        return summaries

    def _pictures(self, trained: training_core.Trained) -> dict[str, bytes]:
        """Return the pictures of the training images nearest the prototypes."""
        wanted: dict[int, set[str]] = {}
        for number, _, path in trained.representatives:
            wanted.setdefault(number, set()).add(path)
        items = []
        for number, paths in wanted.items():
            job = self.sources[number].job
            source = picture_source(job.commit.job)
            if source is not None:
                entries = sorted(job.entries(paths).items())
                items += batches(source, [(picture_key(number, path), entry) for path, entry in entries])
        found: dict[str, bytes] = {}
        stage = Stage("pictures", make_pictures, None, "pictures", lambda item: len(item.images))
        self.runner.run(stage, items, found.update)
        missing = sum(map(len, wanted.values())) - len(found)
        if missing:
            self.runner.progress.note(f"{missing:,} training images cannot be read any more; they have no picture")
        return dict(sorted(found.items()))

    def _store(self, stored: StoredRecogniser) -> None:
        """Publish the recogniser, complete its commit, and remove the nodes."""
        owned = self.owned

        def check() -> None:
            owned.check_owner()

        files = write_recogniser(self.out, stored, check=check)
        if not (self.commit.complete and files == self.commit.files):
            if not complete(self.out, self.commit, files):
                owned.check_owner()  # a twin was faster, unless another training claimed the folder
        last = owned.check_owner()
        levels = [f"{NODES}/{name}" for name in (self.out / NODES).names()]
        owned.remove_leftovers(["", COMMITS, MANIFEST, *levels], {*files, owned.name(REPORT, "html")})
        for name in (*levels, NODES, MANIFEST):
            self.out.remove_empty(name)
        if last is not None and last.complete:
            owned.remove_earlier(last)


def _origin(source: FeatureSource) -> dict[str, object]:
    plan = source.job.plan
    return {"address": source.images, "digest": plan.list.digest, "images": plan.images, "rejects": source.rejects}


def _labels(source: Source) -> set[str]:
    return {label or "" for moments in (source.fit, source.held_out) for label in moments.classes}


def _report(
    training: Training, stored: StoredRecogniser, mapping: Mapping[str, str], seconds: dict[str, float]
) -> TrainingReport:
    own = {label for source in stored.sources if source["classes"] is not None for label in source["classes"]}
    kept = ("address", "images", "rejects", "weight")
    return TrainingReport(
        out=Folder.at(training.out).address,
        version=stored.version,
        classes=len(stored.labels),
        images=sum(stored.counts.values()),
        unmapped=len(own - mapping.keys()) if training.classes is not None else None,
        prototypes=len(stored.arrays["classes"]),
        pictures=len(stored.thumbnails),
        calibration_images=stored.calibration_images,
        sources=[{name: source[name] for name in kept} for source in stored.sources],
        seconds=seconds,
    )
