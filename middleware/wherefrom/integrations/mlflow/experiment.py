"""Where a request's trace belongs: found out once, beside the requests.

MLflow asks its server for the id of ``MLFLOW_EXPERIMENT_NAME`` each time that a trace begins, and waits for
it: some milliseconds when all is well, four minutes when the server is down. ``mlflow-tracing`` alone makes
no traces at all until it is told of an experiment.
"""

from __future__ import annotations

import os
import threading
import time
from typing import Final

from ...ledger import ledger
from . import private

_FIRST_WAIT_S: Final = 3.0
_PAUSE_S: Final = 10.0


class ExperimentLookup:
    """The experiment that the environment names, as an id.

    ``wait_s``: how long to wait for the first answer of the server, when there is a name to ask for.
    """

    def __init__(self, wait_s: float = _FIRST_WAIT_S) -> None:
        self._name = os.environ.get("MLFLOW_EXPERIMENT_NAME")
        self._id = None if self._name else os.environ.get("MLFLOW_EXPERIMENT_ID")
        self._found = threading.Event()
        self._asking: threading.Thread | None = None
        if not self.usable():
            self._found.wait(wait_s)

    def usable(self) -> bool:
        """Whether a trace can begin without waiting for the server; when not, it is being asked."""
        if not self._name or self._id is not None or private.knows_its_experiment():
            return True
        if self._asking is None or not self._asking.is_alive():  # at first, and after a fork
            self._asking = threading.Thread(target=self._ask, name="wherefrom-mlflow-experiment", daemon=True)
            self._asking.start()
        return False

    def id_to_give(self) -> str | None:
        """The id to begin a trace with, or ``None`` when MLflow knows by itself."""
        if private.knows_its_experiment():
            return None
        return self._id or private.DEFAULT_EXPERIMENT

    def _ask(self) -> None:
        while not private.knows_its_experiment():
            try:
                self._id = private.experiment_id(self._name or "")
                break
            except Exception as error:  # noqa: BLE001 - the server is down, or says no
                ledger.failed("mlflow", error)
                time.sleep(_PAUSE_S)
        self._found.set()
