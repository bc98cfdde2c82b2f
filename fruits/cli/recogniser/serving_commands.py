"""Commands that use a recogniser elsewhere: ``serve`` and ``export``."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from fruits.cli import options as options
from fruits.cli.result import CommandResult
from fruits.cli.values import require_extra
from fruits.text import counted


def serve(
    recogniser: options.RecogniserFolder,
    host: Annotated[
        str, typer.Option("--host", metavar="NAME", help="Where to listen; any other than loopback needs a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", metavar="NUMBER", help="The port; 0: any free one.")] = 8000,
    token_file: Annotated[
        str | None,
        options.address("--token-file", metavar="FILE", help="A file with the token that requests must have."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", metavar="COUNT", help="Images processed at once; default: one per CPU.")
    ] = None,
    s3_endpoint: options.S3Endpoint = None,
) -> CommandResult:
    """Serve a recogniser over HTTP, with a page for phones, until Ctrl-C or SIGTERM."""
    require_extra("serve", "starlette", "uvicorn", "httptools", "python_multipart", "prometheus_client")
    sys.modules.setdefault("openvino.tools.ovc", None)  # type: ignore[arg-type]  # takes 4 MB, and converts models only
    from fruits.serving.server import serve as run

    requests = run(recogniser, host=host, port=port, token_file=token_file, workers=workers)
    return CommandResult({"requests": requests}, lambda console: console.print(f"Stopped after {requests:,} requests."))


def export(
    recogniser: options.RecogniserFolder,
    out: Annotated[str, options.address("--out", metavar="FILE", help="The file to write, such as fruit.onnx.")],
    s3_endpoint: options.S3Endpoint = None,
) -> CommandResult:
    """Write a recogniser as one ONNX file, for programs without Fruits."""
    require_extra("export", "onnx")
    from fruits.recogniser.export.onnx_file import export_onnx
    from fruits.recogniser.recogniser import Recogniser

    loaded = Recogniser.load(recogniser)
    size = export_onnx(loaded, out)
    values = {
        "file": out,
        "bytes": size,
        "labels": len(loaded.labels),
        "crops": loaded.crops,
        "version": loaded.version,
    }
    text = f"Wrote {out}: {size / 1e6:.1f} MB, {counted(len(loaded.labels), 'label')}, recogniser {loaded.version}"
    return CommandResult(values, lambda console: console.print(text, soft_wrap=True))
