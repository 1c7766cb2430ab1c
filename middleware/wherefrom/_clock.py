"""Clocks that patches of ``time`` do not reach.

freezegun and its like put functions of their own into ``time``, and into every module that holds one of its
functions. A trace that begins before such a patch and ends under it would have two clocks, and a deadline
might never pass. These functions are those of a copy of the built-in module, which nobody else holds.
time-machine patches the code below them: there the wall clock, which each trace reads once, is the travelled
one.
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
"""Nanoseconds since the epoch: the clock of the system, which may be set."""
ticks_ns: Final[Callable[[], int]] = _time.perf_counter_ns
"""Nanoseconds since some moment: never set back."""
perf_counter: Final[Callable[[], float]] = _time.perf_counter
"""``ticks_ns`` in seconds."""
monotonic: Final[Callable[[], float]] = _time.monotonic
"""Seconds since some moment, for deadlines: never set back."""
