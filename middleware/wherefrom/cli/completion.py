"""Shell completion with the names, keys, values and ids in the store.

Recorded values are untrusted input, and shells do not quote completions: bash inserts them as they are, so
that ``$(...)`` would run, and zsh evaluates them. So only words of plain characters are offered.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import typer

if TYPE_CHECKING:
    from ..analysis.scope import Scope
    from ..client import TraceClient
    from ..stores import Store

_SAFE_WORD: Final = re.compile(r"\w[\w.,:/@+=-]*")
_SAFE_VALUE: Final = re.compile(r"[\w .,:/@+={}-]+")  # in the quotes of a filter
_SAFE_FILTER: Final = re.compile(r"[\w .,:/@+={}'()<>!-]*")
_MOST: Final = 50

Offers = list[str | tuple[str, str]]


def complete_filter(ctx: typer.Context, incomplete: str) -> Offers:
    """Fields, known keys, operators and known values, as the grammar allows."""

    def read(scope: Scope) -> Offers:
        from ..analysis.facets import KnownValues
        from ..query.completion import offers

        found = offers(incomplete, KnownValues(scope, _SAFE_VALUE.fullmatch))
        return [offer for offer in found if _SAFE_FILTER.fullmatch(offer[0].removeprefix(incomplete))]

    return _read(ctx, read)


def complete_format(incomplete: str) -> Offers:
    """Formats to export to."""
    return _plain(["jsonl", "csv", "parquet", "mlflow", "mlflow+http://"], incomplete)


def complete_key(ctx: typer.Context, incomplete: str) -> Offers:
    """Fields and keys to compare by."""

    def read(scope: Scope) -> Offers:
        keys = [
            key.removeprefix("metadata.")
            for key in scope.catalog.spelled_keys()
            if key.startswith(("metadata.", "tag."))
        ]
        return _plain(["name", "status", "user", "session_id", "experiment", *keys], incomplete)

    return _read(ctx, read)


def complete_baseline(ctx: typer.Context, incomplete: str) -> Offers:
    """Values of the field or key to compare by."""

    def read(scope: Scope) -> Offers:
        from .. import keys
        from ..analysis.facets import KnownValues
        from ..analysis.groups import find_grouping

        field = find_grouping(ctx.params.get("by") or keys.APP_VERSION, scope)
        return _plain(KnownValues(scope, _SAFE_VALUE.fullmatch).values(field), incomplete)

    return _read(ctx, read)


def complete_flag(ctx: typer.Context, incomplete: str) -> Offers:
    """Recorded feature flags."""

    def read(scope: Scope) -> Offers:
        from ..keys import FEATURE_FLAG_PREFIX

        spelled = f"metadata.{FEATURE_FLAG_PREFIX}"
        names = [key for key in scope.catalog.spelled_keys() if key.startswith(spelled)]
        return _plain([name.removeprefix(spelled) for name in names], incomplete)

    return _read(ctx, read)


def complete_experiment(ctx: typer.Context, incomplete: str) -> Offers:
    """Names of experiments."""

    def read(client: TraceClient) -> Offers:
        found = client.search_experiments(order_by=["experiment_id"])
        return _plain([experiment.name for experiment in found], incomplete)

    return _ask(ctx, read)


def complete_trace_id(ctx: typer.Context, incomplete: str) -> Offers:
    """Ids of the newest traces with this prefix."""

    def read(client: TraceClient) -> Offers:
        from .._units import full_moment
        from ..query.tree import quote

        prefix = "" if incomplete.startswith("tr-") else "tr-"
        start = "" if "latest".startswith(incomplete) else prefix + incomplete.lower()
        condition = f"trace_id LIKE {quote(f'{start}%')}" if start else None
        found = [trace.info for trace in client.search_traces(None, condition, _MOST, include_spans=False)]
        ids = [
            (info.trace_id.removeprefix(prefix), full_moment(info.request_time))
            for info in found
            if info.trace_id.startswith(start)  # a wildcard in it matches more
        ]
        return [("latest", "the newest"), *(offer for offer in ids if _SAFE_WORD.fullmatch(offer[0]))]

    return _ask(ctx, read)


def _plain(words: Sequence[str], incomplete: str) -> Offers:
    """The words with this prefix that a shell takes as they are."""
    found = (word for word in dict.fromkeys(words) if word.startswith(incomplete))
    return [word for word in found if _SAFE_WORD.fullmatch(word)]


def _read(ctx: typer.Context, read: Callable[[Scope], Offers]) -> Offers:
    from ..analysis.scope import scope

    def inside(store: Store) -> Offers:
        with scope(store, None, None) as found:
            return read(found)

    return _with_store(ctx, inside)


def _ask(ctx: typer.Context, read: Callable[[TraceClient], Offers]) -> Offers:
    from ..client import TraceClient

    return _with_store(ctx, lambda store: read(TraceClient(store)))


def _with_store(ctx: typer.Context, read: Callable[[Store], Offers]) -> Offers:
    """What is read from the store that the line names; nothing on any error, which Tab cannot show."""
    from ..stores.opening import existing

    found: Offers = []
    given = [one.params.get("store") for one in (ctx, ctx.parent) if one is not None]
    with suppress(Exception), existing(next(filter(None, given), None)) as store:
        found = read(store)
    return found
