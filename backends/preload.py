"""The imports of the first task of a worker, for the parent that forks the workers: 0.3 s of CPU time for each.

Importing OpenVINO starts no thread, so that processes can be forked afterwards.
"""

from contextlib import suppress

import fruits.jobs.tasks.featurize  # noqa: F401
from fruits.network.featurizer import import_openvino

with suppress(ImportError):  # not installed: the network runs on TensorFlow
    import_openvino()
