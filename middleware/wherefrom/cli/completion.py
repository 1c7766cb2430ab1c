"""What the shell offers when Tab is pressed: names, keys, values and ids that the store knows.

Values come from strangers, and shells are careless with what is offered: bash puts it on the line as it is,
where ``$(...)`` would run, and zsh evaluates it. So nothing is offered but plain characters.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

import typer

if TYPE_CHECKING:
    from ..analysis.scope import Scope
    from ..stores import Store

_SAFE_WORD: Final = re.compile(r"\w[\w.,:/@+=-]*")
_SAFE_VALUE: Final = re.compile(r"[\w .,:/@+={}-]+")  # in the quotes of a filter
_SAFE_FILTER: Final = re.compile(r"[\w .,:/@+={}'()<>!-]*")
_MOST: Final = 50

Offers = list[str | tuple[str, str]]


def complete_filter(ctx: typer.Context, incomplete: str) -> Offers:
    """Fields, known keys, operators and known values, as the filter goes on."""

    def read(scope: Scope) -> Offers:
        from ..analysis.facets import KnownValues
        from ..query.completion import offers

        found = offers(incomplete, KnownValues(scope, _SAFE_VALUE.fullmatch))
        return [offer for offer in found if _SAFE_FILTER.fullmatch(offer[0].removeprefix(incomplete))]

    return _read(ctx, read)


def complete_format(incomplete: str) -> Offers:
    """What traces can be exported as."""
    return _plain(["jsonl", "csv", "parquet", "mlflow", "mlflow+http://"], incomplete)


def complete_key(ctx: typer.Context, incomplete: str) -> Offers:
    """What traces can be compared by."""

    def read(scope: Scope) -> Offers:
        keys = [key.removeprefix("metadata.") for key in scope.catalog.spelled_keys() if _is_shared(key)]
        return _plain(["name", "status", "user", "session_id", "experiment", *keys], incomplete)

    return _read(ctx, read)


def complete_baseline(ctx: typer.Context, incomplete: str) -> Offers:
    """Values of what is compared by."""

    def read(scope: Scope) -> Offers:
        from .. import keys
        from ..analysis.facets import KnownValues
        from ..analysis.groups import find_grouping

        field = find_grouping(ctx.params.get("by") or keys.APP_VERSION, scope)
        return _plain(KnownValues(scope, _SAFE_VALUE.fullmatch).values(field), incomplete)

    return _read(ctx, read)


def complete_flag(ctx: typer.Context, incomplete: str) -> Offers:
    """Feature flags that traces tell of."""

    def read(scope: Scope) -> Offers:
        from ..keys import FEATURE_FLAG_PREFIX

        spelled = f"metadata.{FEATURE_FLAG_PREFIX}"
        names = [key for key in scope.catalog.spelled_keys() if key.startswith(spelled)]
        return _plain([name.removeprefix(spelled) for name in names], incomplete)

    return _read(ctx, read)


def complete_experiment(ctx: typer.Context, incomplete: str) -> Offers:
    """Names of experiments."""

    def read(scope: Scope) -> Offers:
        from sqlalchemy import select

        from ..stores.sqlite.schema import experiments

        return _plain(list(scope.connection.scalars(select(experiments.c.name))), incomplete)

    return _read(ctx, read)


def complete_trace_id(ctx: typer.Context, incomplete: str) -> Offers:
    """Ids of the newest traces that begin so."""

    def read(scope: Scope) -> Offers:
        from sqlalchemy import select

        from .._units import full_moment
        from ..stores.sqlite.schema import traces

        prefix = "" if incomplete.startswith("tr-") else "tr-"
        begun = prefix + incomplete.lower()
        query = select(traces.c.trace_id, traces.c.request_time).order_by(traces.c.request_time.desc())
        if incomplete and not "latest".startswith(incomplete):
            query = query.where(traces.c.trace_id.startswith(begun, autoescape=True))
        rows = scope.connection.execute(query.limit(_MOST)).all()
        ids = [(id_.removeprefix(prefix), full_moment(time)) for id_, time in rows]
        return [("latest", "the newest"), *(offer for offer in ids if _SAFE_WORD.fullmatch(offer[0]))]

    return _read(ctx, read)


def _is_shared(key: str) -> bool:
    """Whether several traces may well have the same value for a key."""
    return key.startswith(("metadata.", "tag."))


def _plain(words: Sequence[str], incomplete: str) -> Offers:
    """The words that begin so and stand on a command line as they are."""
    begun = (word for word in dict.fromkeys(words) if word.startswith(incomplete))
    return [word for word in begun if _SAFE_WORD.fullmatch(word)]


def _read(ctx: typer.Context, read: Callable[[Scope], Offers]) -> Offers:
    """What is read from the store; nothing where there is none, as Tab is no place to complain."""
    found: Offers = []
    with suppress(Exception):
        from ..analysis.scope import scope

        with _store(ctx) as store, scope(store, None, None) as inside:
            found = read(inside)
    return found


@contextmanager
def _store(ctx: typer.Context) -> Iterator[Store]:
    from .opening import opened, store_url

    given = [one.params.get("store") for one in (ctx, ctx.parent) if one is not None]
    with opened(store_url(ctx, next(filter(None, given), None))) as store:
        yield store
