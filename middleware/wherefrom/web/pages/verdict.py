"""The verdict on a candidate, for the controllers of canaries and other programs."""

from __future__ import annotations

from typing import Final

from ...analysis.gate import Gate, GateVerdict, Limits, Outcome, read_gate
from ...analysis.scope import find_window, limit_to
from ...exceptions import FilterError
from ..page import Page, Reader
from ..parameters import ParameterError, VerdictQuery

_DEADLINE_S: Final = 15.0  # nobody looks at a page: controllers wait, those of the examples for 20 s


def view_verdict(reader: Reader, query: VerdictQuery) -> GateVerdict:
    """The answer of the gate for the traces of the time range.

    Raises:
        ParameterError: a value is missing, or a limit cannot be read.
    """
    for name in ("baseline", "candidate"):
        if not getattr(query, name):
            raise ParameterError(f"{name}: expected a value of {query.by}, such as 1.0.0")
    try:
        limits = Limits.read(
            errors=query.max_error_increase, p95=query.max_p95_increase, p50=query.max_p50_increase
        )
        gate = Gate(query.baseline, query.candidate, query.by, limits, query.min_traces)
    except FilterError as error:
        raise ParameterError(str(error)) from None
    window = find_window(reader.snapshot, query.since, query.until)
    within = limit_to(reader.snapshot, reader.selection, window)
    stratify = None if query.stratify == "none" else query.stratify
    return read_gate(reader.snapshot, within, gate, stratify)


def allows(found: GateVerdict, query: VerdictQuery) -> bool:
    """Whether a webhook of Flagger is answered with 200.

    A canary gets more traffic until it fails, is promoted once it passes, and is rolled back once it fails.
    """
    match query.hook:
        case "confirm-promotion":
            return found.verdict is Outcome.PASS
        case "rollback":
            return found.verdict is Outcome.FAIL
    return found.verdict is not Outcome.FAIL


PAGES: Final = (
    Page(
        path="/api/verdict",
        view=view_verdict,
        answer=GateVerdict,
        summary="Whether a candidate is within limits of a baseline: pass, fail or inconclusive.",
        query=VerdictQuery,
        judge=allows,
        seconds=_DEADLINE_S,
    ),
)
