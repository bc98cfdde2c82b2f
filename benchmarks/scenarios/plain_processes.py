"""A loop over images, in as many processes as there are cores, with nothing else around it."""

from __future__ import annotations

import multiprocessing
import time
from multiprocessing.connection import Connection

import numpy as np

from benchmarks.child import Done, Task
from fruits.images.decode import decode
from fruits.images.listing import Listing
from fruits.jobs.tasks import GROUP
from fruits.model.rows import features_table
from fruits.network.featurizer import NeuralNetwork, compile_network
from fruits.storage.folder import Folder, part_name
from fruits.storage.parquet import write_table

__all__ = ["run_processes"]


def run_processes(task: Task, *, decoded_before: bool) -> Done:
    """Featurize the images; ``featurize`` is from the word to start until the last process is done.

    Features stay in memory meanwhile, and are stored afterwards to be checked.
    """
    begin = time.perf_counter()
    network = compile_network("MobileNetV2")
    context = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    for _ in range(task.case.workers):
        ours, theirs = context.Pipe()
        process = context.Process(target=_loop, args=(theirs, network, task.data, task.out, decoded_before))
        process.start()
        pipes.append(ours)
        processes.append(process)
    _wait(pipes)
    started = time.perf_counter()
    paths = [entry.path for entry in Listing(task.data)]
    listed = time.perf_counter()
    for index, pipe in enumerate(pipes):
        pipe.send((index, paths[index :: len(pipes)]))
    _wait(pipes)  # where pixels come first, they are there now
    ready = time.perf_counter()
    for pipe in pipes:
        pipe.send(None)
    _wait(pipes)
    ended = time.perf_counter()
    for process in processes:
        process.join()
    seconds = {"start-up": started - begin, "listing": listed - started, "featurize": ended - ready}
    return Done(seconds=seconds, unmeasured=ready - listed + time.perf_counter() - ended)


def _wait(pipes: list[Connection]) -> None:
    for pipe in pipes:
        pipe.recv()


def _loop(pipe: Connection, network: NeuralNetwork, images: str, out: str, decoded_before: bool) -> None:
    featurizer = network.load()
    pipe.send("loaded")
    index, paths = pipe.recv()
    pixels = [decode(_read(images, path)) for path in paths] if decoded_before else []
    features = np.empty((len(paths), network.features), np.float32)
    pipe.send("ready")
    pipe.recv()
    if decoded_before:
        for row, picture in zip(features, pixels, strict=True):
            row[:] = featurizer(picture[np.newaxis])[0]
    else:
        for start in range(0, len(paths), GROUP):
            group = [decode(_read(images, path)) for path in paths[start : start + GROUP]]
            features[start : start + GROUP] = featurizer(np.stack(group))
    pipe.send("done")
    table = features_table(paths, [None] * len(paths), features)
    (Folder(out) / "features").write(part_name(index, "parquet"), write_table(table))


def _read(images: str, path: str) -> bytes:
    with open(f"{images}/{path}", "rb") as file:
        return file.read()
