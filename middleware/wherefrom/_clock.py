"""Clocks that patches of ``time`` do not change.

Libraries such as freezegun replace the functions in ``time``, and in every module that holds one of them. A
trace that begins before such a patch and ends under it would have two clocks, and a deadline might never
pass. The functions here come from a private copy of the built-in module. time-machine patches the C code
below them: under it, the wall clock, which each trace reads once, is the patched one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib.machinery import BuiltinImporter
from importlib.util import module_from_spec
from typing import Any, Final

__all__ = ["monotonic", "perf_counter", "ticks_ns", "wall_ns"]


def _own_time() -> Any:
    spec = BuiltinImporter.find_spec("time")
    if spec is None or spec.loader is None:  # not built into this Python
        return time
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_time: Final = _own_time()

wall_ns: Final[Callable[[], int]] = _time.time_ns
"""Nanoseconds since the epoch by the system clock, which may be set back."""
ticks_ns: Final[Callable[[], int]] = _time.perf_counter_ns
"""Nanoseconds since an arbitrary moment; monotonic."""
perf_counter: Final[Callable[[], float]] = _time.perf_counter
"""The same as ``ticks_ns``, in seconds."""
monotonic: Final[Callable[[], float]] = _time.monotonic
"""Seconds since an arbitrary moment, for deadlines; monotonic."""
