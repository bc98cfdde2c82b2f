"""Results of the commands of a recogniser for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.text import Text

from fruits.cli.display import page_of, show_facts
from fruits.text import brief, counted, duration, printable

if TYPE_CHECKING:
    from rich.console import Console

    from fruits.recogniser.jobs.evaluate import Evaluation
    from fruits.recogniser.jobs.status import RecogniserStatus
    from fruits.recogniser.jobs.train import TrainingReport
    from fruits.recogniser.recogniser import Recognition

SHOWN = 3  # labels of a recognition


def show_training(console: Console, report: TrainingReport, following: str | None = None) -> None:
    """Print the result of a training: counts, sources, the files, and a command to continue with."""
    facts = {"recogniser": f"{report.version}, {counted(report.classes, 'class')}, {counted(report.images, 'image')}"}
    facts |= _sources(report.sources)
    if report.unmapped is not None:
        facts["unmapped"] = f"{counted(report.unmapped, 'label')}, classes of their own"
    facts["calibrated"] = _calibration(report.calibration_images)
    facts["prototypes"] = f"{report.prototypes:,}, {report.pictures:,} with a picture"
    facts["time"] = ", ".join(f"{name} {duration(seconds)}" for name, seconds in report.seconds.items()) or "none"
    show_facts(console, facts | {"files": f"{report.out}/"} | page_of(report.out, report.out) | _next(following))


def show_recogniser(console: Console, status: RecogniserStatus) -> None:
    """Print the content of a recogniser."""
    facts = {}
    if not status.complete:
        facts["training"] = "not finished. Run the same command again to resume it"
    if status.version is not None and status.network is not None:
        facts["recogniser"] = f"{status.version}, {counted(status.classes, 'class')}, {counted(status.images, 'image')}"
        facts |= _sources(status.sources) | _changes(status.sources)
        facts["calibrated"] = _calibration(status.calibration_images)
        facts["prototypes"] = f"{status.prototypes:,}, {counted(status.crops, 'crop')} of each image"
        facts["network"] = ", ".join(f"{name} {value[:12]}" for name, value in status.network.items())
    show_facts(console, facts | {"files": f"{status.out}/"})


def _sources(sources: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    return {
        f"source {number}": f"{counted(source['images'], 'image')}, {counted(source['rejects'], 'reject')}, "
        f"weight {source['weight']}: {source['address']}"
        for number, source in enumerate(sources, 1)
    }


def _changes(sources: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    texts = {
        "stale": "changed since the training. Update it with --update if it is an output, and run the same train "
        "command with --overwrite",
        "unknown": "not been compared: its output or its images cannot be read, or this is a copy without commits/",
    }
    facts = {}
    for state, text in texts.items():
        numbers = [str(number) for number, source in enumerate(sources, 1) if source["state"] == state]
        if numbers:
            have = f"source {numbers[0]} has" if len(numbers) == 1 else f"sources {', '.join(numbers)} have"
            facts[state] = f"{have} {text}"
    return facts


def _calibration(images: int) -> str:
    if images:
        return f"on {counted(images, 'held-out image')}"
    return "not at all: too few images to hold some of two classes out. It rejects nothing; give more images"


def show_evaluation(console: Console, evaluation: Evaluation, out: str, following: str) -> None:
    """Print the numbers of an evaluation, and a command to continue with."""
    facts = {"evaluated": f"{counted(evaluation.images, 'image')}, {counted(evaluation.rejects, 'reject')}"}
    if (metrics := evaluation.metrics) is not None:
        low, high = metrics.interval
        facts["top-1"] = f"{metrics.top1:.2%} (95 % interval {low:.2%} to {high:.2%}), top-5 {metrics.top5:.2%}"
        facts["calibration"] = f"ECE {metrics.ece:.2%}"
        kept = "" if metrics.kept_accuracy is None else f", {metrics.kept_accuracy:.2%} of them right"
        facts["answered"] = f"{metrics.kept:.2%}{kept}"
    if evaluation.unknown.images:
        images, rejected = evaluation.unknown.images, evaluation.unknown.rejected
        facts["unknown"] = f"{rejected / images:.2%} of {counted(images, 'image')} of other labels rejected"
    if evaluation.left_out:
        images = sum(each.images for each in evaluation.left_out)
        rejected = sum(each.rejected for each in evaluation.left_out)
        placed = sum(each.placed for each in evaluation.left_out)
        facts["labels left out"] = (
            f"{len(evaluation.left_out):,}: of {images:,} images {rejected / images:.2%} rejected, "
            f"{placed / images:.2%} placed in their class"
        )
    show_facts(console, facts | {"report": f"{out}/report.html"} | _next(following))


def _next(following: str | None) -> dict[str, str]:
    return {} if following is None else {"next": following}


def show_recognitions(console: Console, files: Sequence[str], results: Sequence[Recognition]) -> None:
    """Print the recognition of each file."""
    for file, result in zip(files, results, strict=True):
        answer = f"not recognised ({result.reason})" if result.prediction is None else result.prediction
        others = ", ".join(f"{printable(brief(each.label))} {each.score:.1%}" for each in result.top[:SHOWN])
        line = Text.assemble(f"{printable(file)}: ", (printable(brief(answer)), "bold"), f" [{others}]")
        console.print(line, soft_wrap=True)
