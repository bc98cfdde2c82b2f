"""Run a job on a backend with a trivial network, and print its rejects as JSON."""

import json
import sys
from dataclasses import dataclass

import numpy as np

import backends
from fruits.jobs import pipeline
from fruits.jobs.job import Job


@dataclass(frozen=True)
class PixelNetwork:
    """A network whose features are the first pixels of the middle row of an image."""

    backbone: str = "MobileNetV2"
    engine: str = "openvino"
    package: str = "stand-in-1"
    weights_digest: str = "none"
    features: int = 8
    digest: str = "pixels"

    def load(self):
        return lambda pixels: pixels[:, 112, : self.features, 0].astype(np.float32)


def main(name, images, out):
    pipeline.compile_network = lambda *_: PixelNetwork()
    job = Job(images=images, out=out, components=2, partition_size=8, columns=("features",))
    with backends.load(name)(workers=1 if name == "local" else 2) as executor:
        print(json.dumps(dict(pipeline.run(job, executor).rejects)))


if __name__ == "__main__":
    from tests.conformance.crashing import main  # workers unpickle the network by this name

    main(*sys.argv[1:])
