"""What is configured, and where each setting came from; what looks like a setting and is none."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Final, Literal

from .._sanitize import MASK, without_secrets
from ..exceptions import SettingsError
from ..settings import PREFIX, Settings, setting_rows

_STORE: Final = f"{PREFIX}STORE"

Origin = Literal["argument", "environment", "default"]


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting as it is in force; ``value`` is what one would write in ``variable``, secrets masked."""

    name: str
    variable: str
    value: str
    origin: Origin


@dataclass(frozen=True, slots=True)
class Stray:
    """A variable with our prefix that is no setting, and the setting that may be meant."""

    variable: str
    meant: str | None


@dataclass(frozen=True, slots=True)
class Configuration:
    """All settings. ``problem`` says which one cannot be used; ``effective`` is then ``None``.

    ``store`` is the URL of the store, ``None`` where that is the setting that cannot be used.
    """

    effective: Settings | None
    settings: tuple[Setting, ...]
    strays: tuple[Stray, ...]
    store: str | None
    problem: str | None = None


def read_configuration(store: str | None = None) -> Configuration:
    """The settings of this process; ``store`` is the argument, which wins."""
    given = {name.upper(): value for name, value in os.environ.items() if name.upper().startswith(PREFIX)}
    effective, problem = None, None
    try:
        effective = Settings()
    except SettingsError as error:
        problem = without_secrets(str(error))
    rows = {row.variable: row for row in setting_rows()}
    url: str | None = store or (
        given.get(_STORE, rows[_STORE].default) if effective is None else effective.store
    )
    if problem is not None and problem.startswith(f"{_STORE}="):
        url = store
    strays = (Stray(name, _nearest(name, rows)) for name in sorted(given.keys() - rows.keys()))
    return Configuration(effective, tuple(_settings(effective, given, store)), tuple(strays), url, problem)


def _settings(effective: Settings | None, given: Mapping[str, str], store: str | None) -> Iterator[Setting]:
    for row in setting_rows():
        origin: Origin = "environment" if row.variable in given else "default"
        value = given.get(row.variable, row.default)
        if row.variable == _STORE and store is not None:
            origin, value = "argument", store
        elif effective is not None:
            value = _written(getattr(effective, row.name))
        if row.secret:
            value = MASK if value else ""
        yield Setting(row.name, row.variable, without_secrets(value), origin)


def _written(value: Any) -> str:
    """A setting as one writes it in a variable."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ", ".join(value)
    return json.dumps(value) if isinstance(value, dict) else str(value)


def _nearest(name: str, known: Iterable[str]) -> str | None:
    return next(iter(get_close_matches(name, sorted(known), n=1, cutoff=0.7)), None)
