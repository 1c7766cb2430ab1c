"""One release against another, a flag that is on against off: any two values that traces have."""

from __future__ import annotations

from collections.abc import Sequence

from .. import keys
from ..exceptions import FilterError
from ..query.errors import did_you_mean
from ..stores import Store
from .groups import Group
from .pairs import MIN_TRACES, Pair
from .results import Comparison
from .rows import Choice, compare_pairs

_OFF = "false"


def compare(
    by: str = keys.APP_VERSION,
    filter_string: str | None = None,
    *,
    baseline: str | None = None,
    experiment: str | None = None,
    store: Store | str | None = None,
    confidence: float = 0.95,
) -> Comparison:
    """Compare the traces that pass a filter by the value that they have for ``by``.

    ``by`` is a field (``name``, ``status``, ``user``...), or a metadata key or tag (``region``,
    ``metadata.region``, ``tag.team``). Traces without it are left out and counted. The 100 values with the
    most traces are shown, in the order in which they were first seen.

    Every value is compared with ``baseline``: by default the one first seen, as the older release is, of
    those with traces enough to compare with. ``store`` is a store or its URL; by default that of the
    settings.

    Raises:
        FilterError: the filter cannot be read, nothing is named ``by``, or no trace has the baseline.
    """

    def choose(groups: Sequence[Group]) -> Choice:
        return _against(groups, _first(groups) if baseline is None else _named(groups, baseline, by))

    return compare_pairs(by, filter_string, choose, experiment=experiment, store=store, confidence=confidence)


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
    by = keys.FEATURE_FLAG_PREFIX + name.removeprefix(keys.FEATURE_FLAG_PREFIX)

    def choose(groups: Sequence[Group]) -> Choice:
        off = [group for group in groups if group.value == _OFF]
        return _against(groups, off[0] if off else _first(groups))

    return compare_pairs(by, filter_string, choose, experiment=experiment, store=store, confidence=confidence)


def _against(groups: Sequence[Group], baseline: Group | None) -> Choice:
    if baseline is None:
        return None, []
    return baseline.value, [Pair(group, baseline) for group in groups if group is not baseline]


def _first(groups: Sequence[Group]) -> Group | None:
    enough = (group for group in groups if group.traces >= MIN_TRACES)
    return next(enough, groups[0] if groups else None)


def _named(groups: Sequence[Group], value: str, by: str) -> Group:
    for group in groups:
        if group.value == value:
            return group
    known = [group.value for group in groups]
    raise FilterError(f"no trace to compare with has {by} {value!r}{did_you_mean(value, known)}")
