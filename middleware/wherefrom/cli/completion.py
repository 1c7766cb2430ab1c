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
    from ..stores import Snapshot

_SAFE_WORD: Final = re.compile(r"\w[\w.,:/@+=-]*")
_SAFE_VALUE: Final = re.compile(r"[\w .,:/@+={}-]+")  # in the quotes of a filter
_SAFE_FILTER: Final = re.compile(r"[\w .,:/@+={}'()<>!-]*")
_MOST: Final = 50  # a shell asks before it lists more

Offers = list[str | tuple[str, str]]


def complete_filter(ctx: typer.Context, incomplete: str) -> Offers:
    """Complete fields, known keys, operators and known values, as the grammar allows."""

    def read(snapshot: Snapshot) -> Offers:
        from ..query.completion import offers

        found = offers(incomplete, snapshot, _SAFE_VALUE.fullmatch)
        return [offer for offer in found if _SAFE_FILTER.fullmatch(offer[0].removeprefix(incomplete))]

    return _read(ctx, read)


def complete_format(incomplete: str) -> Offers:
    """Formats to export to."""
    return _plain(["jsonl", "csv", "parquet", "mlflow", "mlflow+http://"], incomplete)


def complete_key(ctx: typer.Context, incomplete: str) -> Offers:
    """Fields and keys to compare by."""

    def read(snapshot: Snapshot) -> Offers:
        keys = [
            key.removeprefix("metadata.")
            for key in snapshot.spelled_keys()
            if key.startswith(("metadata.", "tag."))
        ]
        return _plain(["name", "status", "user", "session_id", "experiment", *keys], incomplete)

    return _read(ctx, read)


def complete_baseline(ctx: typer.Context, incomplete: str) -> Offers:
    """Values of the field or key to compare by."""

    def read(snapshot: Snapshot) -> Offers:
        from .. import keys
        from ..analysis.scope import find_grouping
        from ..query.completion import known_values

        field = find_grouping(ctx.params.get("by") or keys.APP_VERSION, snapshot)
        return _plain(known_values(field, snapshot, _SAFE_VALUE.fullmatch), incomplete)

    return _read(ctx, read)


def complete_flag(ctx: typer.Context, incomplete: str) -> Offers:
    """Recorded feature flags."""

    def read(snapshot: Snapshot) -> Offers:
        from ..keys import FEATURE_FLAG_PREFIX

        spelled = f"metadata.{FEATURE_FLAG_PREFIX}"
        names = [key for key in snapshot.spelled_keys() if key.startswith(spelled)]
        return _plain([name.removeprefix(spelled) for name in names], incomplete)

    return _read(ctx, read)


def complete_experiment(ctx: typer.Context, incomplete: str) -> Offers:
    """Names of experiments."""

    def read(snapshot: Snapshot) -> Offers:
        return _plain([name for _, name in snapshot.experiments()], incomplete)

    return _read(ctx, read)


def complete_trace_id(ctx: typer.Context, incomplete: str) -> Offers:
    """Ids of the newest traces with this prefix."""

    def read(snapshot: Snapshot) -> Offers:
        from .._units import full_moment
        from ..query.fields import Operator, find_field
        from ..query.order import NEWEST_FIRST
        from ..query.tree import Compare
        from ..stores import Selection

        prefix = "" if incomplete.startswith("tr-") else "tr-"
        start = prefix + incomplete.lower()
        selection = Selection()
        if incomplete and not "latest".startswith(incomplete):
            selection = Selection(Compare(find_field(None, "request_id"), Operator.LIKE, f"{start}%"))
        rows = snapshot.rows(snapshot.search(selection, NEWEST_FIRST, _MOST).keys)
        ids = [(row.trace_id.removeprefix(prefix), full_moment(row.request_time)) for row in rows]
        ids = [
            offer for offer in ids if offer[0].startswith(incomplete)
        ]  # the prefix may contain wildcards of LIKE
        return [("latest", "the newest"), *(offer for offer in ids if _SAFE_WORD.fullmatch(offer[0]))]

    return _read(ctx, read)


def _plain(words: Sequence[str], incomplete: str) -> Offers:
    """The words with this prefix that a shell inserts unchanged."""
    found = (word for word in dict.fromkeys(words) if word.startswith(incomplete))
    return [word for word in found if _SAFE_WORD.fullmatch(word)]


def _read(ctx: typer.Context, read: Callable[[Snapshot], Offers]) -> Offers:
    """Read from the store that the line names; yield nothing on an error, which completion cannot show."""
    from ..stores.opening import existing

    found: Offers = []
    given = [one.params.get("store") for one in (ctx, ctx.parent) if one is not None]
    with (
        suppress(Exception),
        existing(next(filter(None, given), None)) as store,
        store.snapshot() as snapshot,
    ):
        found = read(snapshot)
    return found
