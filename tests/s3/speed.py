"""Speed of featurize from S3, compared with a local disk: ``python -m tests.s3.speed IMAGES --rounds 3``.

The server and a proxy that adds 30 ms to every request run on one core; the driver and its two workers share another
for both sources. The result is therefore the cost of S3 to the workers, without that of the server. The sources
alternate, and their medians are compared.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.s3.server import served

FRUITS = Path(sys.executable).with_name("fruits")


def main() -> None:
    """Measure, and print the result as one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit", type=int, default=2048)
    parser.add_argument("--partition-size", type=int, default=1024)
    parser.add_argument("--delay", type=float, default=0.03)
    parser.add_argument("--backend", default="dask")
    arguments = parser.parse_args()
    server_core, *others = sorted(os.sched_getaffinity(0))
    worker_core = others[0]
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        (root / "s3" / "out").mkdir(parents=True)
        shutil.copytree(arguments.images, root / "s3" / "images")
        os.sched_setaffinity(0, {server_core})  # inherited by the server and the proxy
        command = [sys.executable, "-m", "tests.s3.proxy", "--delay", str(arguments.delay)]
        with served(root / "s3") as server:
            with subprocess.Popen([*command, server.address], stdout=subprocess.PIPE, text=True) as proxy:
                try:
                    assert proxy.stdout is not None
                    environ = os.environ | server.environ(proxy.stdout.readline().strip())
                    os.sched_setaffinity(0, {worker_core})
                    speeds: dict[str, list[float]] = {"disk": [], "s3": []}
                    for turn in range(arguments.rounds):
                        for name, images, out in (
                            ("disk", str(root / "s3" / "images"), f"{root}/out-{turn}"),
                            ("s3", "s3://images", f"s3://out/{turn}"),
                        ):
                            command_line = [
                                str(FRUITS),
                                "fit",
                                images,
                                "--out",
                                out,
                                "--components",
                                "8",
                                "--workers",
                                "2",
                            ]
                            command_line += [
                                "--limit",
                                str(arguments.limit),
                                "--partition-size",
                                str(arguments.partition_size),
                            ]
                            command_line += ["--backend", arguments.backend, "--quiet", "--json"]
                            done = subprocess.run(command_line, env=environ, check=True, capture_output=True, text=True)
                            report = json.loads(done.stdout)
                            speeds[name].append(report["images_per_second"])
                            print(name, report["images_per_second"], report["worker_seconds"], file=sys.stderr)
                finally:
                    proxy.terminate()
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    print(json.dumps({"speeds": speeds, "share": round(medians["s3"] / medians["disk"], 3)}, indent=2))


if __name__ == "__main__":
    main()
