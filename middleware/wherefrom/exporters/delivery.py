"""Delivering traces for those who can wait: a command, not a request."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from random import uniform
from typing import Final, TypeVar

from ..exceptions import StoreUnavailableError
from ..model import Trace
from ..sinks import Sink

TRIES: Final = 6
_FIRST_PAUSE_S: Final = 0.5
_LEAST_JITTER: Final = 0.5
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Refused:
    """A trace that cannot be moved, and why."""

    trace_id: str
    reason: str


def deliver(sink: Sink, traces: Sequence[Trace]) -> list[Refused]:
    """Write traces, one by one where they are refused together; those that are refused for good.

    Raises:
        StoreUnavailableError: the sink stays out of reach.
    """
    while traces:
        try:
            patiently(partial(sink.write, traces))
        except StoreUnavailableError as error:
            if error.left is None:
                raise
            traces = error.left
            time.sleep(_FIRST_PAUSE_S)
        except Exception as error:  # noqa: BLE001 - one bad trace must not cost the others
            if len(traces) == 1:
                return [Refused(traces[0].info.trace_id, str(error))]
            return [refused for trace in traces for refused in deliver(sink, [trace])]
        else:
            break
    return []


def patiently(
    call: Callable[[], _Result], *, tries: int = TRIES, sleep: Callable[[float], object] = time.sleep
) -> _Result:
    """What ``call`` returns, tried six times in some ten seconds while what it needs is out of reach.

    Raises:
        StoreUnavailableError: it stays out of reach, or took some and has ``left`` the others.
    """
    for failures in range(tries - 1):
        try:
            return call()
        except StoreUnavailableError as error:
            if error.left is not None:  # this was progress, and the same call would be another one
                raise
            sleep(_FIRST_PAUSE_S * 2**failures * uniform(_LEAST_JITTER, 1))  # noqa: S311 - no secret
    return call()
