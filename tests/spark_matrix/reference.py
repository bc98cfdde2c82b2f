"""Prepare the inputs of a worker with an old Python: ``python -m tests.spark_matrix.reference FOLDER``.

Run with a current Python, which writes the compiled network, images, their plan and the expected features.
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
