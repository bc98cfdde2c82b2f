"""What a worker with an old Python needs from elsewhere: ``python -m tests.spark_matrix.elsewhere FOLDER``.

Keras' OpenVINO backend needs Python 3.11, so that the network comes compiled from this one; with it come pictures,
their plan, and the features that this Python finds in them.
"""

import pickle
import sys
from pathlib import Path

import backends
from fruits.images.sample import generate
from fruits.jobs import pipeline
from fruits.jobs.job import Job
from fruits.network.featurizer import compile_network

PARTITION_SIZE = 8


def main(folder: Path) -> None:
    generate(folder / "images", images=60, broken=3)
    (folder / "network.pickle").write_bytes(pickle.dumps(compile_network("MobileNetV2")))
    job = Job(images=str(folder / "images"), out=str(folder / "out"), components=10, partition_size=PARTITION_SIZE)
    with backends.load("local")(workers=1) as executor:
        pipeline.fit(job, executor)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
