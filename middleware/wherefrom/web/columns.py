"""Columns of the table of traces."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from .. import keys

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
"""The columns with names, in the order in which a form lists them."""

DEFAULT_COLUMNS: Final = tuple(TITLES)[:11]
_KEYS: Final = {
    "version": keys.APP_VERSION,
    "environment": keys.ENVIRONMENT,
    "region": keys.REGION,
    "deployment": keys.DEPLOYMENT_ID,
}
_OF_A_KEY: Final = re.compile(r"(metadata|tag)\.[^\x00-\x1f]{1,250}")


@dataclass(frozen=True, slots=True)
class Column:
    """One column; that of a key names its ``family``, ``metadata`` or ``tag``, and the ``key``."""

    name: str
    title: str
    family: str | None = None
    key: str | None = None

    @property
    def kind(self) -> str:
        """The name for style sheets: that of the column, or ``pair``."""
        return self.name if self.name in TITLES else "pair"


def check_column(name: str) -> str:
    """The name of a column; an empty one, which a form may send, passes.

    Raises:
        ValueError: there is no such column.
    """
    if name and name not in TITLES and not _OF_A_KEY.fullmatch(name):
        raise ValueError("expected a column such as duration, metadata.tier or tag.team")
    return name


def columns_of(names: Sequence[str]) -> list[Column]:
    """The columns with these names, each once."""
    return [_column(name) for name in dict.fromkeys(names)]


def choices(chosen: Sequence[str]) -> Iterator[tuple[Column, bool]]:
    """Every column with a name and every chosen one, and whether it is chosen."""
    for name in dict.fromkeys((*TITLES, *chosen)):
        yield _column(name), name in chosen


def _column(name: str) -> Column:
    if name in TITLES:
        key = _KEYS.get(name)
        return Column(name, TITLES[name], None if key is None else "metadata", key)
    family, _, key = name.partition(".")
    return Column(name, key, family, key)
