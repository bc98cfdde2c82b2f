"""The table of commands: each function with its help panel and example."""

from __future__ import annotations

from typing import Annotated

import typer

from fruits.cli import job_commands, output_commands, tool_commands

JOBS, OUTPUTS, TOOLS = "Jobs", "Outputs", "Tools"
EXAMPLE = "[bold]Example:[/] "
PASSED_ON = {"ignore_unknown_options": True, "allow_extra_args": True}  # for commands with a parser of their own

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


app.command(rich_help_panel=JOBS, epilog=EXAMPLE + "fruits demo --backend spark")(job_commands.demo)
app.command(
    rich_help_panel=JOBS,
    epilog=EXAMPLE + "fruits run photos/ --out out/photos --backend spark --components 200\n\n"
    "In four slices: [bold]fruits run photos/ --out out/photos --shards 1/4[/] to 4/4, then once without --shards.",
)(job_commands.run)
app.command(
    rich_help_panel=JOBS, epilog=EXAMPLE + "fruits fit s3://bucket/train --out s3://bucket/model --cluster dask-address"
)(job_commands.fit)
app.command(
    rich_help_panel=JOBS, epilog=EXAMPLE + "fruits transform new-photos/ --model out/photos --out out/new --format csv"
)(job_commands.transform)

app.command(
    rich_help_panel=OUTPUTS,
    epilog=EXAMPLE + "fruits status s3://bucket/out\n\nRepeatedly: [bold]watch -n 10 fruits status out/photos[/]",
)(output_commands.status)
app.command(rich_help_panel=OUTPUTS, epilog=EXAMPLE + "fruits verify out/photos")(output_commands.verify)
app.command(rich_help_panel=OUTPUTS, epilog=EXAMPLE + "fruits compare out/dask out/spark")(output_commands.compare)

app.command(rich_help_panel=TOOLS, epilog=EXAMPLE + "fruits sample photos/ --images 1000 --labels 5")(
    tool_commands.sample
)
app.command(
    rich_help_panel=TOOLS, epilog=EXAMPLE + "fruits weights --backbone ResNet50 --weights s3://bucket/resnet50.h5"
)(tool_commands.weights)
app.command(
    rich_help_panel=TOOLS,
    epilog=EXAMPLE + "fruits bench photos/ --set quick --out bench/",
    add_help_option=False,
    context_settings=PASSED_ON,
)(tool_commands.bench)
app.command(
    rich_help_panel=TOOLS,
    epilog=EXAMPLE + "fruits cluster init s3://my-fruits --region eu-west-3 --dry-run",
    add_help_option=False,
    context_settings=PASSED_ON,
)(tool_commands.cluster)
