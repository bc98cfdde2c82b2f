"""One plain process per core, without an engine: the yardsticks of an engine's overhead.

============ ==========================================================================================
bare-loop    read, decode and run the network
ceiling      run the network on images decoded in advance: an upper bound of any pipeline's throughput
============ ==========================================================================================
"""

from __future__ import annotations

import multiprocessing
import time
from multiprocessing.connection import Connection

import numpy as np

from benchmarks.scenarios.task import Task, Timings
from fruits.images.decode import decode
from fruits.images.sources.kinds import open_source
from fruits.images.sources.listing import Listing
from fruits.jobs.tasks.featurize import IMAGES_PER_GROUP
from fruits.model.rows import features_table
from fruits.network.featurizer import NeuralNetwork, compile_network
from fruits.storage.folder import Folder, part_name
from fruits.storage.parquet import write_table


def run(task: Task) -> Timings:
    """Compute the features of the images.

    The features stay in memory while ``featurize`` is timed and are stored afterwards, to be checked.
    """
    decode_first = task.case.scenario == "ceiling"
    begin = time.perf_counter()
    network = compile_network("MobileNetV2")
    context = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    for _ in range(task.case.workers):
        ours, theirs = context.Pipe()
        process = context.Process(target=_loop, args=(theirs, network, task.data, task.out, decode_first))
        process.start()
        pipes.append(ours)
        processes.append(process)
    _wait(pipes)
    started = time.perf_counter()
    paths = [image.path for image in Listing(open_source(task.data))]
    listed = time.perf_counter()
    for index, pipe in enumerate(pipes):
        pipe.send((index, paths[index :: len(pipes)]))
    _wait(pipes)  # with `decode_first`, all images are decoded now
    ready = time.perf_counter()
    for pipe in pipes:
        pipe.send(None)
    _wait(pipes)
    ended = time.perf_counter()
    for process in processes:
        process.join()
    seconds = {"start-up": started - begin, "listing": listed - started, "featurize": ended - ready}
    return Timings(seconds=seconds, unmeasured=ready - listed + time.perf_counter() - ended)


def _wait(pipes: list[Connection]) -> None:
    for pipe in pipes:
        pipe.recv()


def _loop(pipe: Connection, network: NeuralNetwork, images: str, out: str, decode_first: bool) -> None:
    featurizer = network.load()
    pipe.send("loaded")
    index, paths = pipe.recv()
    pixels = [decode(_read(images, path)) for path in paths] if decode_first else []
    features = np.empty((len(paths), network.features), np.float32)
    pipe.send("ready")
    pipe.recv()
    if decode_first:
        for row, image in zip(features, pixels, strict=True):
            row[:] = featurizer(image[np.newaxis])[0]
    else:
        for start in range(0, len(paths), IMAGES_PER_GROUP):
            group = [decode(_read(images, path)) for path in paths[start : start + IMAGES_PER_GROUP]]
            features[start : start + IMAGES_PER_GROUP] = featurizer(np.stack(group))
    pipe.send("done")
    table = features_table(paths, [None] * len(paths), features)
    (Folder(out) / "features").write(part_name(index, "parquet"), write_table(table))


def _read(images: str, path: str) -> bytes:
    with open(f"{images}/{path}", "rb") as file:
        return file.read()
