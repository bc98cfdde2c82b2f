"""Fit the model of a job from the moments of its features, and load that of a transform."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from fruits.errors import DamageError, ModelError, SettingsError
from fruits.executor import native_solver
from fruits.images.decode import DecodeMode
from fruits.jobs.job import DECODE_MODES, Job
from fruits.jobs.output import Output
from fruits.jobs.parts import OutputParts
from fruits.jobs.stages import Stage, StageRunner
from fruits.jobs.tasks.moments import Group, Input, MergeItem, MergeSettings, levels, merge
from fruits.jobs.tasks.rows import Encoder
from fruits.model.components import check_components
from fruits.model.moments import Moments
from fruits.model.scaled_pca import ScaledPCA
from fruits.model.solver import solve
from fruits.plan.partitions import Partition, Plan
from fruits.storage.checksums import read_part
from fruits.storage.commits import last_commit, read_commit
from fruits.storage.folder import Folder
from fruits.text import brief

MOST_LABELS = 10_000  # whose moments are kept: 200 MB


def fitted_model(job: Job) -> ScaledPCA:
    """Return the model of a transform."""
    out, given = (without_links(Folder.at(str(address)).address) for address in (job.out, job.model))
    if f"{given}/".startswith(f"{out}/"):
        raise SettingsError(f"`out` {job.out} contains the model of `model` {job.model}. Give the rows another `out`.")
    try:
        model = ScaledPCA.load(str(job.model))
    except OSError as error:
        raise ModelError(f"`model` {job.model} cannot be read: {error.strerror or error}.") from error
    fitted_on = model.network.get("backbone")
    if job.backbone not in (None, fitted_on):
        raise ModelError(
            f"`model` {job.model} was fitted on features of {fitted_on}, which contradicts `backbone` {job.backbone}. "
            f"Leave `backbone` out, or give a model of {job.backbone}."
        )
    return model


def without_links(address: str) -> str:
    """Return an address in which the links of this machine are resolved."""
    return address if "://" in address else os.path.realpath(address)


def kept_model(command: str, job: Job) -> ScaledPCA | None:
    """Return the stored model of an update that keeps it."""
    if not job.keep_model:
        return None
    if command != "run":
        raise SettingsError(f"`keep_model` for {command}: not allowed. It is for run, which writes rows.")
    out = Folder.at(job.out)
    commit = last_commit(out)
    if commit is None:
        raise SettingsError(f"`keep_model`: {job.out} contains no model yet. Leave it out for the first command.")
    while True:
        try:
            return ScaledPCA.load(out, commit.owner)
        except ModelError:
            if not commit.base:  # of an update that stopped before it copied the model
                raise
            commit = read_commit(out, commit.base)


def decode_mode(job: Job, encoder: Encoder | None) -> DecodeMode:
    """Return how to decode: as for the model or the recogniser that is applied."""
    if encoder is None:
        return job.decode or "reduced"
    fitted_with = encoder.network["decode"]
    if fitted_with not in DECODE_MODES:
        raise ModelError(
            f"{_applied(job, encoder)} was fitted with `decode` {brief(fitted_with)}, which this version does not "
            f"know. Known: {', '.join(DECODE_MODES)}."
        )
    if job.decode not in (None, fitted_with):
        raise ModelError(
            f"{_applied(job, encoder)} was fitted with `decode` {fitted_with}, which contradicts `decode` "
            f"{job.decode}. Leave `decode` out."
        )
    return cast(DecodeMode, fitted_with)


def _applied(job: Job, encoder: Encoder) -> str:
    return f"`{encoder.parameter}` {getattr(job, encoder.parameter)}"


def check_features(job: Job, encoder: Encoder, features: Mapping[str, Any]) -> None:
    """Raise if a model or a recogniser was fitted on features of another network or decoding, or of more crops."""
    applied, known_by_name = _applied(job, encoder), encoder.network
    for name, found in (("backbone", features["network"]["backbone"]), ("decode", features["decode"])):
        if found != (known := known_by_name.get(name)):
            raise ModelError(
                f"{applied} was fitted on features of `{name}` {known}, but those of {job.images} are of "
                f"`{name}` {found}. Give a {encoder.parameter} of `{name}` {found}."
            )
    check_crops(job.images, features, encoder.crops, applied)
    if (found := features["network"]["weights"]) != (known := known_by_name.get("weights")):
        raise ModelError(
            f"{applied} was fitted with weights of digest {known}, but the weights found here have the "
            f"digest {found}. Give the same weights with `weights`."
        )


def check_crops(address: str, features: Mapping[str, Any], crops: int, user: str) -> None:
    """Raise if the features of an output lack crops that are needed."""
    if features["crops"] < crops:
        raise SettingsError(
            f"{user} needs the features of {crops} crops of each image, but {address} stores those of "
            f"{features['crops']}. Make them with: fruits fit IMAGES --out FOLDER --crops {crops}"
        )


@dataclass(frozen=True, slots=True)
class Fitting:
    """The moments and the model of a job whose features are stored."""

    job: Job
    output: Output
    parts: OutputParts
    runner: StageRunner

    def moments(self) -> Moments:
        """Return the moments of all features: the stored ones, those of an update, or the sum over all partitions."""
        partitions, base = self.output.plan.partitions, self.output.base
        rows = sum(report.rows for report in self.parts.reports.values())
        check_components(self.job.components, rows, self._length())
        stored = self.output.features.moments()
        if stored is None and base is not None and self._has_all_changes(base.plan):
            changed = [partition for partition in partitions if partition.stored is not None]
            if (before := base.moments()) is not None:
                added, removed = self._merged({"added": changed, "removed": changed})
                stored = before + added - removed
        if stored is None:
            (stored,) = self._merged({"features": partitions})
        if stored.count != rows:
            raise DamageError(
                f"{self.output.folder.address}/moments count {stored.count:,} rows, but the features have {rows:,}. "
                "Remove that folder, and start the same command again."
            )
        return stored

    def _has_all_changes(self, base: Plan) -> bool:
        """Return whether ``added/`` and ``removed/`` contain every row in which the features differ from a base.

        They do not if stored features could not be used again.
        """
        plan, reports = self.output.plan, self.parts.reports
        changed = [each for each in plan.partitions if each.stored is not None]
        covered = sum(each.images for each in plan.partitions if each.owner)
        covered += sum(each.stored.images for each in changed if each.stored is not None)
        return (
            covered == base.images
            and all(each.owner or each.stored is not None for each in plan.partitions)
            and all(reports[each.index].added is not None for each in changed)
            and self._by_label(base) == self._by_label(plan)
        )

    def _by_label(self, plan: Plan) -> bool:
        """Return whether moments are also summed by label, which takes 20 kB a label."""
        return plan.labels <= MOST_LABELS

    def _length(self) -> int:
        return int(self.output.commit.job["features"]["length"])

    def _merged(self, kinds: Mapping[str, Sequence[Partition]]) -> list[Moments]:
        """Return the moments of the rows of some partitions in ``features/``, ``added/`` or ``removed/``.

        The nodes of a level are merged in one stage, whatever their kind.
        """
        inputs: dict[str, list[Input]] = {}
        trees: dict[str, list[list[Group]]] = {}
        for kind, some in kinds.items():
            filled = [partition for partition in some if self._most_rows(kind, partition)]
            inputs[kind] = [self._input(kind, partition) for partition in filled]
            trees[kind] = levels([self._most_rows(kind, partition) for partition in filled]) if filled else []
        for level in range(max(map(len, trees.values()))):
            below = {kind: inputs[kind] for kind, tree in trees.items() if level < len(tree)}
            nodes = {kind: [self._node(kind, group, below[kind]) for group in trees[kind][level]] for kind in below}
            self._merge([node for some in nodes.values() for node in some])
            inputs |= {kind: [(node.name, self.parts.checksum(node.name)) for node in nodes[kind]] for kind in below}
        folder = self.output.folder
        roots = (inputs[kind] for kind in kinds)
        return [
            Moments.from_bytes(read_part(folder, *root[0])) if root else Moments.empty(self._length()) for root in roots
        ]

    def _node(self, kind: str, group: Group, below: Sequence[Input]) -> MergeItem:
        name = self.output.owned.part(f"moments/{kind}-{group.level}", group.index, "safetensors")
        return MergeItem(group, name, tuple(below[group.start : group.stop]))

    def _merge(self, nodes: Sequence[MergeItem]) -> None:
        """Write the nodes that are not stored yet."""
        unfinished = self.parts.unfinished([node.name for node in nodes])
        by_label = self._by_label(self.output.plan)
        settings = MergeSettings(self.output.features.owned.folder, self._length(), self.output.owned, by_label)
        stage = Stage("moments", merge, settings, "groups", lambda _: 1)
        self.parts.write(stage, [node for node in nodes if node.name in unfinished])

    def _input(self, kind: str, partition: Partition) -> Input:
        if kind == "features":
            return self.parts.feature_parts(partition)[0]
        name = self.output.owned.part(kind, partition.index, "parquet")
        return name, self.parts.checksum(name)

    def _most_rows(self, kind: str, partition: Partition) -> int:
        """Return a bound of the number of rows of a part: the same in every command, as the merge tree must be."""
        if kind == "features":
            return partition.images
        report = self.parts.reports[partition.index]
        rows = report.added if kind == "added" else report.removed
        assert rows is not None, partition
        return rows

    def fit(self, moments: Moments) -> ScaledPCA:
        """Return the fitted model: the stored one, or one that is solved from the moments."""
        if self.output.owned.name("model", "json") in (self.output.folder / "model").names():
            try:
                return ScaledPCA.load(self.output.folder)
            except ModelError as error:
                self.runner.progress.event("damage", f"corrupt: {error}; solving again", parts=["model"])
        features = self.output.commit.job["features"]
        network = features["network"] | {"decode": features["decode"]}
        if self.job.solver == "native":
            model = dataclasses.replace(self._solve_native(), network=network)
        else:
            with self.runner.timed("solve"):
                model = solve(moments, self.job.components, network=network)
        for name, data in model.encode(self.output.owned.owner).items():
            self.output.owned.write(f"model/{name}", data)
        return model

    def _solve_native(self) -> ScaledPCA:
        """Fit the model with the engine's own estimators."""
        self.runner.start()
        with self.runner.timed("native fit"):
            address, partitions = self.output.features.owned.folder.address, self.output.plan.partitions
            features = [f"{address}/{self.output.features.features_name(partition)}" for partition in partitions]
            rows = [self.parts.reports[partition.index].rows for partition in partitions]
            return native_solver(self.runner.executor).fit_native(features, rows, self.job.components)
