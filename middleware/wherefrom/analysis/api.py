"""The public functions: each opens the store, takes one snapshot and parses the filter once.

``store`` is a store or its URL, by default the one that ``Settings`` names; ``experiment`` is a name, by
default all experiments. Every function raises ``FilterError`` for a filter or an argument that cannot be used
and ``StoreError`` for a store that cannot be read.
"""

from __future__ import annotations

from .. import keys
from ..query.order import PagedList
from ..stores import Store
from .comparison import compare_flag, compare_values, compare_versions
from .deployments import Deployments, read_deployments
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
) -> Comparison:
    """Compare the traces that pass a filter by their value of ``by``.

    ``by`` is a field (``name``, ``status``, ``user``...), or a metadata key or tag (``region``,
    ``metadata.region``, ``tag.team``). Traces without a value are left out and counted. The 100 values with
    the most traces are shown, in the order in which they were first seen.

    Every value is compared with ``baseline``: by default the first seen of those with enough traces, which is
    the older release.

    Raises:
        FilterError: the filter cannot be read, nothing is named ``by``, or no trace has the baseline.
    """
    with opened(store, filter_string, experiment) as (snapshot, selection):
        return compare_values(snapshot, selection, by, baseline=baseline, confidence=confidence)


def flag(
    name: str,
    filter_string: str | None = None,
    *,
    experiment: str | None = None,
    store: Store | str | None = None,
    confidence: float = 0.95,
) -> Comparison:
    """Compare by a feature flag, as ``record_feature_flag(name, value)`` recorded it.

    The baseline is ``"false"``; for a flag that is never off, the value first seen.

    Raises:
        FilterError: the filter cannot be read, or no trace carries the flag.
    """
    with opened(store, filter_string, experiment) as (snapshot, selection):
        return compare_flag(snapshot, selection, name, confidence=confidence)


def versions(
    filter_string: str | None = None,
    *,
    by: str = keys.APP_VERSION,
    experiment: str | None = None,
    store: Store | str | None = None,
    confidence: float = 0.95,
) -> Versions:
    """The releases in the order in which they were first seen, each compared with the one before it.

    A release with too few traces is skipped as the one before. ``regressions`` lists the releases that are
    worse, each with the release that ended the regression.

    Raises:
        FilterError: the filter cannot be read, or nothing is named ``by``.
    """
    with opened(store, filter_string, experiment) as (snapshot, selection):
        return compare_versions(snapshot, selection, by, confidence=confidence)


def timeline(
    by: str = keys.APP_VERSION,
    filter_string: str | None = None,
    *,
    buckets: int = 60,
    experiment: str | None = None,
    store: Store | str | None = None,
) -> Timeline:
    """Traces and errors over time for each value of ``by``, in ``buckets`` steps of a round length, or fewer.

    ``by`` and which of its values are shown are as in ``compare``.

    Raises:
        FilterError: the filter cannot be read, nothing is named ``by``, or ``buckets`` is not 1 to 1,000.
    """
    with opened(store, filter_string, experiment) as (snapshot, selection):
        return read_timeline(snapshot, selection, by, buckets)


def deployments(
    since: str | None = None,
    until: str | None = None,
    *,
    experiment: str | None = None,
    store: Store | str | None = None,
) -> Deployments:
    """The deployments that sent traces within a window, by default a day.

    Raises:
        FilterError: a moment cannot be read, or the window is empty.
    """
    with opened(store, None, experiment) as (snapshot, selection):
        return read_deployments(snapshot, selection, find_window(snapshot, since, until))


def sessions(
    filter_string: str | None = None,
    *,
    experiment: str | None = None,
    store: Store | str | None = None,
    max_results: int = 100,
    page_token: str | None = None,
) -> PagedList[Session]:
    """A page of the sessions in which some trace passes the filter, the one with the latest turn first.

    A session counts all its turns, also those that do not pass. New turns do not shift pages: a session that
    gets one after the first page was read moves to the front.

    Raises:
        FilterError: the filter, the token or the number cannot be used.
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
    *,
    experiment: str | None = None,
    store: Store | str | None = None,
    max_results: int = 100,
    page_token: str | None = None,
) -> PagedList[Turn]:
    """A page of the turns of a session, the first one first.

    Raises:
        FilterError: the token or the number cannot be used.
    """
    with opened(store, None, experiment) as (snapshot, selection):
        return read_turns(snapshot, session_id, selection.experiments, max_results, page_token)
