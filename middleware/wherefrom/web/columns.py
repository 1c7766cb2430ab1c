"""The columns of the table of traces, of which people choose those that they want to see."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from .. import keys
from .parameters import Parameter

TITLES: Final = {
    "time": "Time",
    "state": "State",
    "name": "Name",
    "duration": "Duration",
    "outcome": "Outcome",
    "version": "Version",
    "environment": "Environment",
    "user": "User",
    "session": "Session",
    "request_id": "Request id",
    "preview": "Preview",
    "response": "Response",
    "region": "Region",
    "deployment": "Deployment",
    "experiment": "Experiment",
    "trace_id": "Trace id",
}
"""Every column with a name of its own, in the order in which they stand."""

_DEFAULT: Final = tuple(TITLES)[:11]
_KEYS: Final = {
    "version": keys.APP_VERSION,
    "environment": keys.ENVIRONMENT,
    "region": keys.REGION,
    "deployment": keys.DEPLOYMENT_ID,
}

COLUMNS: Final = Parameter(
    "columns",
    "The columns of the table, in order; `metadata.<key>` and `tag.<key>` are columns too.",
    default=_DEFAULT,
    pattern=f"{'|'.join(TITLES)}|(metadata|tag)\\.[^\\x00-\\x1f]{{1,250}}",
    example="duration, metadata.tier or tag.team",
    many=True,
)


@dataclass(frozen=True, slots=True)
class Column:
    """One column: ``name`` says which; one of a key also where, ``metadata`` or ``tag``, and under which."""

    name: str
    title: str
    family: str | None = None
    key: str | None = None

    @property
    def kind(self) -> str:
        """What style sheets know it by."""
        return self.name if self.name in TITLES else "pair"


def columns_of(names: Sequence[str]) -> list[Column]:
    """The columns with these names, each once."""
    return [_column(name) for name in dict.fromkeys(names)]


def choices(chosen: Sequence[str]) -> Iterator[tuple[Column, bool]]:
    """Every column to choose from, those of keys that are chosen already too, and whether it is chosen."""
    others = (name for name in chosen if name not in TITLES)
    for name in dict.fromkeys((*TITLES, *others)):
        yield _column(name), name in chosen


def _column(name: str) -> Column:
    if name in TITLES:
        key = _KEYS.get(name)
        return Column(name, TITLES[name], None if key is None else "metadata", key)
    family, _, key = name.partition(".")
    return Column(name, key, family, key)
