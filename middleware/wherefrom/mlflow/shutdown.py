"""The end of a process whose MLflow server cannot be reached: MLflow alone waits some four minutes for it."""

from __future__ import annotations

import threading
from concurrent.futures import thread as pool
from contextlib import suppress

from ..process import ledger
from . import private

_registered = False


def hold_nothing_up() -> None:
    """What MLflow has been waited for in vain until now, it is not waited for when the process ends.

    What Python has for that is private too; where it has it no more, the process ends as it does without us.
    """
    global _registered
    if not _registered:
        _registered = True
        # What is registered last is called first: before Python waits for the threads of pools.
        with suppress(AttributeError, RuntimeError):
            threading._register_atexit(_let_go)  # type: ignore[attr-defined] # noqa: SLF001


def _let_go() -> None:
    try:
        for thread in private.stop_sending():
            pool._threads_queues.pop(thread, None)  # type: ignore[attr-defined] # noqa: SLF001
    except Exception as error:  # noqa: BLE001 - another tracer's trouble
        ledger.failed("mlflow", error)
