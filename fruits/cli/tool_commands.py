"""Commands around the jobs: ``pack``, ``sample``, ``weights``, ``bench`` and ``cluster``."""

from __future__ import annotations

import os
from dataclasses import asdict
from importlib import import_module
from importlib.util import find_spec
from shlex import quote
from typing import Annotated, Any

import typer

from fruits.cli import options as options
from fruits.cli.result import CommandResult
from fruits.cli.values import check_address, local_path, parse_size
from fruits.errors import SettingsError
from fruits.progress.select import to_stderr
from fruits.text import counted


def pack(
    *,
    images: options.Images,
    out: Annotated[
        str,
        options.output(
            "--out",
            metavar="FOLDER",
            help="A new or empty folder for the archives.",
            show_default=False,
            callback=check_address,
        ),
    ],
    shard_size: Annotated[
        str, options.output("--shard-size", metavar="SIZE", help="The largest size of an archive, such as 1GB.")
    ] = "256MB",
    source: options.SourceOptions,
    follow_links: options.FollowLinks = False,
    include_hidden: options.IncludeHidden = False,
    max_reject_fraction: options.MaxRejectFraction = 0.1,
    s3_endpoint: options.S3Endpoint = None,
    overwrite: Annotated[
        bool, options.output("--overwrite", metavar="", help="Replace the archives of an earlier pack in --out.")
    ] = False,
    quiet: options.Quiet = False,
) -> CommandResult:
    """Pack images into tar archives, which are read faster from S3 and give the same model and rows.

    Paths and labels are kept. Use them as images: fruits run 'OUT/*.tar' --out RESULT
    """
    from fruits.cli.display import show_pack
    from fruits.images.sources.kinds import open_source
    from fruits.images.sources.options import SourceOptions
    from fruits.images.tar.pack import pack as pack_images
    from fruits.storage.folder import Folder

    chosen = SourceOptions(**asdict(source), follow_links=follow_links, include_hidden=include_hidden)
    report = pack_images(
        open_source(images, chosen),
        Folder.at(out),
        shard_size=parse_size(shard_size),
        max_reject_fraction=max_reject_fraction,
        overwrite=overwrite,
        progress=to_stderr(quiet=quiet),
    )
    return CommandResult(asdict(report), lambda console: show_pack(console, report, out))


def sample(
    folder: Annotated[
        str, options.argument(metavar="DIR", help="A new or empty folder on this machine.", callback=check_address)
    ],
    images: Annotated[int, typer.Option("--images", metavar="COUNT", help="Number of images.")] = 240,
    labels: Annotated[int, typer.Option("--labels", metavar="COUNT", help="Number of labels (fruits), 1 to 8.")] = 8,
    broken: Annotated[int, typer.Option("--broken", metavar="COUNT", help="Number of additional corrupt files.")] = 0,
    seed: Annotated[int, typer.Option("--seed", metavar="NUMBER", help="Random seed.")] = 0,
) -> CommandResult:
    """Generate a labelled dataset of drawn fruit."""
    from fruits.images.sample import generate

    files = generate(local_path(folder), images=images, labels=labels, seed=seed, broken=broken)
    text = f"Wrote {counted(files, 'file')} to {folder}. Next: fruits run {quote(folder)} --out OUT"
    return CommandResult(
        {"folder": os.path.abspath(folder), "files": files}, lambda console: console.print(text, soft_wrap=True)
    )


def weights(
    backbone: options.Backbone = None,
    weights: options.Weights = None,
    s3_endpoint: options.S3Endpoint = None,
    quiet: options.Quiet = False,
) -> CommandResult:
    """Verify the ImageNet weights of a network and cache them; download those that Fruits does not contain."""
    from fruits.cli.display import show_weights
    from fruits.network.backbones import backbone as find_backbone
    from fruits.network.weights import find_weights

    network = find_backbone(backbone or "MobileNetV2")
    with to_stderr(quiet=quiet).stage("weights", total=None):
        found = find_weights(network, weights)
    values = {
        "backbone": network.name,
        "source": found.source,
        "digest": found.digest,
        "path": str(found.path),
        "verified": network.weights_digest is not None,
    }
    return CommandResult(values, lambda console: show_weights(console, values))


def bench(context: typer.Context) -> Any:
    """Benchmark this machine on Dask and Spark (source checkout only)."""
    if find_spec("benchmarks") is None:
        raise SettingsError(
            "fruits bench: the benchmarks are not part of the installed package. "
            "Run it in a source checkout, after: pip install -e '.[all,bench]'."
        )
    if find_spec("psutil") is None:
        raise SettingsError("fruits bench: psutil is not installed. Install it with: pip install -e '.[all,bench]'.")
    # Loaded by name, because the installed package does not contain it.
    return import_module("benchmarks.cli").call(context.args)


def cluster(context: typer.Context) -> Any:
    """Set up an AWS account for Fruits; list, start and stop clusters."""
    return import_module("backends.aws.cli").call(context.args)
