"""Complete the output of a job: account for every image, write report and commit, and remove unlisted files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import orjson

from fruits.errors import DamageError, OutputError
from fruits.jobs.job import FITTING
from fruits.jobs.output import Output
from fruits.jobs.parts import OutputParts
from fruits.jobs.report import REPORT, Report
from fruits.jobs.stages import StageRunner
from fruits.jobs.stored import encode_accounts
from fruits.model.moments import Moments
from fruits.model.scaled_pca import ScaledPCA
from fruits.storage.checksums import checksum, read_part
from fruits.storage.commits import COMMITS, Commit, complete
from fruits.storage.folder import encode_json


@dataclass(frozen=True, slots=True)
class Completion:
    """The last step of a job, when all its parts are stored."""

    command: str
    output: Output
    parts: OutputParts
    runner: StageRunner

    def complete(self, model: ScaledPCA | None, moments: Moments | None) -> Report:
        """Check that every image is accounted for, and write the report and the commit of the complete output."""
        owned, out, images = self.output.owned, self.output.folder, self.output.plan.images
        totals = self.parts.totals(self.command)
        rejected = sum(totals["rejects"].values())
        if totals["rows"] + rejected != images:
            raise DamageError(
                f"{out.address}: {images:,} images were listed, but {totals['rows']:,} rows and {rejected:,} rejects "
                "are stored. Give another `out`."
            )
        report = self._stored_report() or Report(
            **totals,
            ignored=None if self.output.skipped is None else sum(self.output.skipped.values()),
            labels=self.output.labels,
            skipped=self.output.skipped,
            throughput=self.runner.timeline.to_dict(),
            **({} if model is None else _variance(model)),
        )
        written = {owned.name("plan/accounts", "parquet"): encode_accounts(self.parts.reports.values())}
        if moments is not None:
            written[owned.name("moments/total", "safetensors")] = moments.to_bytes()
        for name, data in written.items():
            owned.write(name, data)
        name, data = owned.name(REPORT, "json"), encode_json(report.to_dict())
        written[name] = data if self.output.commit.complete else self._publish_report(data)
        if self.command in FITTING:
            assert model is not None
            written |= {f"model/{name}": data for name, data in model.encode(owned.owner).items()}
        plan = owned.name("plan/partitions", "parquet")
        pages = self.parts.final_manifest()
        files = {name: checksum(data).hex() for name, data in written.items()}
        files |= {plan: self.output.commit.files[plan], **pages}
        self._commit(files, {name: data})
        return report

    def _commit(self, files: Mapping[str, str], report: Mapping[str, bytes]) -> None:
        """Create the commit of the complete output, and remove everything that it does not list."""
        owned, out, commit = self.output.owned, self.output.folder, self.output.commit
        if not (commit.complete and files == commit.files):
            if not complete(out, commit, files):
                owned.check_owner()  # a twin was faster, unless another job claimed the folder
            elif commit.complete:
                self._repair(report)
        tidy(self.output)

    def _publish_report(self, data: bytes) -> bytes:
        """Publish the report of a job, unless a twin has; return the content of the published one."""
        out, name = self.output.owned, self.output.owned.name(REPORT, "json")
        out.check_owner()
        return data if out.folder.create(name, data) else out.folder.read(name)

    def _repair(self, report: Mapping[str, bytes]) -> None:
        """Write the report that the commit of this command lists.

        It is written after the commit: of two commands that repair a report at once, only the one whose commit counts
        writes.
        """
        owned = self.output.owned
        try:
            for name, data in report.items():
                replace(owned, commit=owned.commit + 1).write(name, data)
        except OutputError:
            owned.check_owner()  # a third command has repaired it since, unless another job claimed the folder

    def _stored_report(self) -> Report | None:
        """Return the report of a job that was complete before this command; None if it is missing or corrupt."""
        out, name = self.output.folder, self.output.owned.name(REPORT, "json")
        if not self.output.commit.complete:
            return None
        try:
            data = read_part(out, name, bytes.fromhex(self.output.commit.files[name]))
            report = Report.of(orjson.loads(data), f"{out.address}/{name}")
        except (DamageError, KeyError, ValueError) as error:
            self.runner.progress.event("damage", f"corrupt: {name}; writing it again", parts=[str(error)])
            return None
        self.runner.progress.note("the output was complete already; all its parts were verified")
        return report


def _variance(model: ScaledPCA) -> dict[str, Any]:
    return {
        "components": len(model.components),
        "explained_variance_ratio": model.explained_variance_ratio.tolist(),
        "components_reaching": {f"{share:g}": model.components_reaching(share) for share in (0.8, 0.9, 0.95)},
    }


def tidy(output: Output) -> Commit | None:
    """Remove what is left of writers that were killed, and all files that a complete output does not list.

    Returns
    -------
    Commit or None
        The last commit of the job if the output is complete.
    """
    owned, folders = output.owned, [COMMITS, *output.subfolders()]
    last = owned.check_owner()
    if last is None or not last.complete:
        owned.remove_leftovers(folders)
        return None
    final = replace(output.job, commit=last).final_files()
    owned.remove_leftovers(folders, {*final, owned.name(REPORT, "html")})
    owned.remove_earlier(last)
    return last
