"""The table of commands: each function with its help panel and example."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer

from fruits.cli import job_commands, options, output_commands, tool_commands
from fruits.cli.recogniser import serving_commands, training_commands

JOBS, RECOGNISER, OUTPUTS, TOOLS = "Jobs", "Recogniser", "Outputs", "Tools"
PASSED_ON: dict[str, Any] = {  # of commands with a parser of their own
    "add_help_option": False,
    "context_settings": {"ignore_unknown_options": True, "allow_extra_args": True},
}

app = typer.Typer(
    name="fruits",
    help="Turn labelled images into standardised, PCA-reduced transfer-learning features: the same result on Dask "
    "and on Spark.",
    epilog="Start with: [bold]fruits demo[/]. Then: [bold]fruits run IMAGES --out OUT[/].",
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(requested: bool) -> None:
    if requested:
        from importlib.metadata import version

        print(f"fruits {version('fruits')}")
        raise typer.Exit


@app.callback()
def _global_options(
    version: Annotated[
        bool, typer.Option("--version", metavar="", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


def _add(panel: str, command: Callable[..., Any], example: str, *, has_parser: bool = False) -> None:
    settings = PASSED_ON if has_parser else {}
    complete = command if has_parser else options.option_groups(command)
    app.command(rich_help_panel=panel, epilog=f"[bold]Example:[/] {example}", **settings)(complete)


_add(JOBS, job_commands.demo, "fruits demo --backend spark")
_add(
    JOBS,
    job_commands.run,
    "fruits run photos/ --out out/photos --backend spark --components 200\n\n"
    "In four slices: [bold]fruits run photos/ --out out/photos --shards 1/4[/] to 4/4, then once without --shards.",
)
_add(JOBS, job_commands.fit, "fruits fit s3://bucket/train --out s3://bucket/model --cluster dask-address")
_add(JOBS, job_commands.transform, "fruits transform new-photos/ --model out/photos --out out/new --format csv")
_add(
    RECOGNISER,
    training_commands.train,
    "fruits train photos/Training --out recogniser --crops 2 --test photos/Validation",
)
_add(
    RECOGNISER, training_commands.evaluate, "fruits evaluate photos/Validation --recogniser recogniser --out evaluation"
)
_add(RECOGNISER, training_commands.predict, "fruits predict photo.jpg --recogniser recogniser")
_add(RECOGNISER, serving_commands.serve, "fruits serve --recogniser recogniser")
_add(RECOGNISER, serving_commands.export, "fruits export --recogniser recogniser --out fruit.onnx")
_add(
    OUTPUTS,
    output_commands.status,
    "fruits status s3://bucket/out\n\nRepeatedly: [bold]watch -n 10 fruits status out/photos[/]",
)
_add(OUTPUTS, output_commands.report, "fruits report out/photos --tsne")
_add(OUTPUTS, output_commands.verify, "fruits verify out/photos")
_add(OUTPUTS, output_commands.compare, "fruits compare out/dask out/spark")
_add(TOOLS, tool_commands.pack, "fruits pack s3://bucket/photos --out s3://bucket/shards")
_add(TOOLS, tool_commands.sample, "fruits sample photos/ --images 1000 --labels 5")
_add(TOOLS, tool_commands.weights, "fruits weights --backbone ResNet50 --weights s3://bucket/resnet50.h5")
_add(TOOLS, tool_commands.bench, "fruits bench photos/ --set quick --out bench/", has_parser=True)
_add(TOOLS, tool_commands.cluster, "fruits cluster init s3://my-fruits --region eu-west-3 --dry-run", has_parser=True)
