"""The public functions: each opens the store, takes one snapshot and parses the filter once.

``store`` is a store or its URL, by default the one that ``Settings`` names; ``experiment`` is a name, by
default all experiments. Every function raises ``FilterError`` for a filter or an argument that cannot be used
and ``StoreError`` for a store that cannot be read.
"""

from __future__ import annotations

from .. import keys
from ..query.order import PagedList
from ..stores import Store
from .comparison import STRATIFY, compare_flag, compare_values, compare_versions
from .deployments import Deployments, read_deployments
from .error_groups import ErrorGroups, read_error_groups
from .gate import Gate, GateVerdict, read_gate
from .results import Comparison, Versions
from .scope import find_window, opened
from .sessions import Session, Turn, find_session, read_sessions, read_turns
from .timeline import Timeline, read_timeline


def compare(
    by: str = keys.APP_VERSION,
    filter_string: str | None = None,
    *,
    baseline: str | None = None,
    experiment: str | None = None,
    store: Store | str | None = None,
    confidence: float = 0.95,
    stratify: str | None = STRATIFY,
    sequential: bool = False,
) -> Comparison:
    """Compare the traces that match a filter by their value of ``by``.

    ``by`` is a field (``name``, ``status``, ``user``...), a metadata key or a tag (``region``,
    ``metadata.region``, ``tag.team``). Traces without a value are left out and counted. The 100 values with
    the most traces are shown, in the order in which they were first seen.

    Every value is compared with ``baseline``: by default the first seen that has enough traces, which is the
    older release. Traces are compared only with those of the same ``stratify``, by default of the same name:
    a version that got other requests is not blamed for them. ``None`` compares all with all.

    ``sequential`` is for a comparison that is made again and again while traces arrive: the chance that any
    of them is wrong is then 5 %, for which only larger differences are found as early.

    Raises:
        FilterError: the filter is invalid, nothing is named ``by``, or no trace has the baseline.
    """
    with opened(store, filter_string, experiment) as (snapshot, selection):
        return compare_values(
            snapshot,
            selection,
            by,
            baseline=baseline,
            confidence=confidence,
            stratify=stratify,
            sequential=sequential,
        )


def flag(
    name: str,
    filter_string: str | None = None,
    *,
    experiment: str | None = None,
    store: Store | str | None = None,
    confidence: float = 0.95,
    stratify: str | None = STRATIFY,
    sequential: bool = False,
) -> Comparison:
    """Compare by a feature flag that ``record_feature_flag(name, value)`` recorded.

    The baseline is ``"false"``, or the value first seen if no trace has that.

    Raises:
        FilterError: the filter is invalid, or no trace carries the flag.
    """
    with opened(store, filter_string, experiment) as (snapshot, selection):
        return compare_flag(
            snapshot, selection, name, confidence=confidence, stratify=stratify, sequential=sequential
        )


def gate(
    question: Gate,
    filter_string: str | None = None,
    *,
    experiment: str | None = None,
    store: Store | str | None = None,
    stratify: str | None = STRATIFY,
) -> GateVerdict:
    """Whether a candidate is, for sure, not worse than a baseline by more than the limits of a ``Gate``.

    Of the traces that match a filter: ``gate(Gate("1.0.0", "1.1.0"))``.

    Raises:
        FilterError: the filter is invalid, or nothing is named as the gate's ``by``.
    """
    with opened(store, filter_string, experiment) as (snapshot, selection):
        return read_gate(snapshot, selection, question, stratify)


def versions(
    filter_string: str | None = None,
    *,
    by: str = keys.APP_VERSION,
    experiment: str | None = None,
    store: Store | str | None = None,
    confidence: float = 0.95,
    stratify: str | None = STRATIFY,
    sequential: bool = False,
) -> Versions:
    """List the releases in the order in which they were first seen, each compared with the previous one.

    A release with too few traces is not used as the previous one. ``regressions`` lists the releases that are
    worse, each with the release that ended the regression.

    Raises:
        FilterError: the filter is invalid, or nothing is named ``by``.
    """
    with opened(store, filter_string, experiment) as (snapshot, selection):
        return compare_versions(
            snapshot, selection, by, confidence=confidence, stratify=stratify, sequential=sequential
        )


def timeline(
    by: str = keys.APP_VERSION,
    filter_string: str | None = None,
    *,
    buckets: int = 60,
    experiment: str | None = None,
    store: Store | str | None = None,
) -> Timeline:
    """Count traces and errors over time for each value of ``by``, in at most ``buckets`` steps.

    ``by`` and the choice of its values are as in ``compare``.

    Raises:
        FilterError: the filter is invalid, nothing is named ``by``, or ``buckets`` is not 1 to 1,000.
    """
    with opened(store, filter_string, experiment) as (snapshot, selection):
        return read_timeline(snapshot, selection, by, buckets)


def deployments(
    since: str | None = None,
    until: str | None = None,
    *,
    filter_string: str | None = None,
    experiment: str | None = None,
    store: Store | str | None = None,
) -> Deployments:
    """List the deployments that sent traces that match a filter, by default within the last day.

    Raises:
        FilterError: the filter or a time is invalid, or the range is empty.
    """
    with opened(store, filter_string, experiment) as (snapshot, selection):
        return read_deployments(snapshot, selection, find_window(snapshot, since, until))


def errors(
    filter_string: str | None = None,
    *,
    since: str | None = None,
    until: str | None = None,
    experiment: str | None = None,
    store: Store | str | None = None,
) -> ErrorGroups:
    """The failed traces that match a filter in groups of like errors, by default of the last day.

    Raises:
        FilterError: the filter or a time is invalid, or the range is empty.
    """
    with opened(store, filter_string, experiment) as (snapshot, selection):
        return read_error_groups(snapshot, selection, find_window(snapshot, since, until))


def sessions(
    filter_string: str | None = None,
    *,
    experiment: str | None = None,
    store: Store | str | None = None,
    max_results: int = 100,
    page_token: str | None = None,
) -> PagedList[Session]:
    """A page of the sessions with a trace that matches the filter, the one with the latest turn first.

    All turns of a session are counted, also those that do not match. New turns do not shift pages: a session
    that gets one after the first page was read moves to the front.

    Raises:
        FilterError: the filter, the token or the number is invalid.
    """
    with opened(store, filter_string, experiment) as (snapshot, selection):
        return read_sessions(snapshot, selection, max_results, page_token)


def read_session(
    session_id: str, *, experiment: str | None = None, store: Store | str | None = None
) -> Session:
    """One session.

    Raises:
        TraceNotFoundError: no trace has it.
    """
    with opened(store, None, experiment) as (snapshot, selection):
        return find_session(snapshot, session_id, selection.experiments)


def turns(
    session_id: str,
    filter_string: str | None = None,
    *,
    experiment: str | None = None,
    store: Store | str | None = None,
    max_results: int = 100,
    page_token: str | None = None,
) -> PagedList[Turn]:
    """A page of the turns of a session that match the filter, the first one first.

    Raises:
        FilterError: the filter, the token or the number is invalid.
    """
    with opened(store, filter_string, experiment) as (snapshot, selection):
        return read_turns(snapshot, session_id, selection, max_results, page_token)
