"""The recogniser that answers, replaced when its folder contains another version.

A request uses the recogniser that was current at its start, so a change drops none.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import numpy as np

from fruits.errors import FruitsError, ModelError
from fruits.recogniser.recogniser import Recogniser
from fruits.storage.folder import Folder
from fruits.storage.stores import FileInfo

if TYPE_CHECKING:
    from fruits.serving.metrics import Metrics

POLL_SECONDS = 1.0
REMOTE_POLL_SECONDS = 30.0  # each poll is a request to the object store

_log = logging.getLogger("fruits.serving")


class CurrentRecogniser:
    """The latest valid recogniser of a folder.

    Parameters
    ----------
    folder : str
        Folder of the recogniser, or a symbolic link to it that is switched.

    Attributes
    ----------
    value : Recogniser
        The recogniser for new requests.

    Raises
    ------
    ModelError
        The folder contains no valid recogniser.
    """

    def __init__(self, folder: str) -> None:
        self._folder = Folder.at(folder)
        self._poll_seconds = REMOTE_POLL_SECONDS if "://" in folder else POLL_SECONDS
        self._seen = self._listed()
        self.value = self._load()

    async def watch(self, metrics: Metrics) -> None:
        """Check the folder again and again until cancelled; count the changes."""
        while True:
            await asyncio.sleep(self._poll_seconds)
            await asyncio.to_thread(self.refresh, metrics)

    def refresh(self, metrics: Metrics) -> None:
        """Load the recogniser if it changed; keep the current one if the new one cannot be used."""
        try:
            listed = self._listed()
            if listed == self._seen:
                return
            self._seen = listed
            changed = self._load()
            if changed.network != self.value.network:
                raise ModelError(
                    f"{self._folder.address}: its network is {dict(changed.network)}, "
                    f"but the server has loaded {dict(self.value.network)}. Restart the server to change the network."
                )
        except (FruitsError, OSError) as error:
            metrics.reloads.labels("failed").inc()
            _log.error("Version %s stays in use. The new recogniser cannot be loaded: %s", self.value.version, error)
            return
        if changed.version != self.value.version:
            metrics.reloads.labels("loaded").inc()
            _log.info("Recogniser changed from version %s to %s", self.value.version, changed.version)
            self.value = changed

    def _load(self) -> Recogniser:
        """Return the recogniser of the folder, after one image: the first one computes what later ones use."""
        loaded = Recogniser.load(self._folder)
        loaded.recognise_features(np.zeros((1, loaded.crops, len(loaded.scorer.mean)), np.float32))
        return loaded

    def _listed(self) -> dict[str, FileInfo] | str:
        """Return all files, because a copy may be complete only after its metadata, which a training writes last.

        If they cannot be listed, return the error: it is logged once, by the load that it makes fail.
        """
        try:
            return self._folder.files()
        except OSError as error:
            return str(error)
