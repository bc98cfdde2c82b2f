"""Regenerate the packaged MobileNetV2 from its weights: ``python -m fruits.network.rebuild [WEIGHTS [FOLDER]]``.

WEIGHTS is the address of a file in any format of :func:`fruits.network.weights.find_weights`, such as Keras' official
``.h5``; without it, the weights are those of the packaged network itself. FOLDER is the folder to write; without it,
the packaged network of this checkout is overwritten. The command needs the extra ``keras``, and writes the same bytes
with the versions that ``mobilenetv2/PROVENANCE.md`` names.
"""

from __future__ import annotations

import sys
from pathlib import Path

from fruits.errors import FruitsError
from fruits.network.backbones import backbone
from fruits.network.featurizer import build_network
from fruits.network.packaged import CONSTANTS, GRAPH, PACKAGED, PACKAGED_DIGEST
from fruits.network.weights import find_weights

FOLDER = Path(__file__).parent / "mobilenetv2"


def rebuild(weights: str | None, folder: Path) -> str:
    """Write graph and constants of the packaged network into a folder, and return their digest.

    Parameters
    ----------
    weights : str or None
        Address of a file of its weights. They are verified by the digest of their tensors.
    folder : Path
        An existing folder.

    Raises
    ------
    WeightsError, SettingsError
        As in :func:`fruits.network.weights.find_weights`.
    """
    network = backbone(PACKAGED)
    graph, constants, digest = build_network(network, "openvino", find_weights(network, weights))
    (folder / GRAPH).write_bytes(graph)
    (folder / CONSTANTS).write_bytes(constants)
    return digest


def main(weights: str = "", folder: str = "") -> None:
    """Rebuild, print the digest, and exit with code 1 if it is not that in the code."""
    try:
        digest = rebuild(weights or None, Path(folder) if folder else FOLDER)
    except FruitsError as error:
        raise SystemExit(f"rebuild: {error}") from error
    print(f"{digest}  {PACKAGED}")
    if digest != PACKAGED_DIGEST:
        raise SystemExit(f"rebuild: the digest in fruits/network/packaged.py is {PACKAGED_DIGEST}.")


if __name__ == "__main__":
    main(*sys.argv[1:])
