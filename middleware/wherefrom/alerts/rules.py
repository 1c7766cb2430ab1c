"""Alert rules: what ``alerts.toml`` holds, read strictly.

Every key is checked when the file is read, filters too, so that a rule that can never fire stops the start.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal, NoReturn, get_args
from urllib.parse import urlsplit

from .. import keys
from .._permissions import data_path
from .._sanitize import visible
from .._units import age_ms, counted
from ..analysis.comparison import STRATIFY
from ..exceptions import FilterError, SettingsError
from ..exporters.endpoint import Endpoint
from ..query.errors import did_you_mean
from ..query.forgiving import parse_search
from ..query.tree import Node, format_filter

Form = Literal["json", "slack", "teams"]

_MINUTE_MS: Final = 60_000
_LONGEST_NAME: Final = 100
_LONGEST_MS: Final = 366 * 24 * 60 * _MINUTE_MS
_MAX_SHOWN: Final = 60
_SECRET: Final = frozenset({"webhook"})
_PERCENT: Final = re.compile(r"(\d+(?:\.\d+)?)\s*%", re.ASCII)
_QUANTILE: Final = re.compile(r"p(50|95|99)\s+(\d+(?:\.\d+)?)\s*(ms|s)", re.ASCII)
_TAKES: Final = {
    "name": f"a text of 1 to {_LONGEST_NAME} characters that no other rule has",
    "where": "a filter",
    "filter": "a filter",
    "above": "a share such as '5%', a number of traces such as 20, or a duration such as 'p95 800ms'",
    "over": "a time such as '90s', '5m', '2h' or '1d'",
    "min_traces": "a number of traces from 1 on",
    "candidate": "a value of the key that is compared by",
    "baseline": "a value of the key that is compared by",
    "by": "a metadata key, tag.KEY or a field",
    "stratify": "a metadata key, tag.KEY, a field or 'none'",
    "experiment": "the name of an experiment",
    "webhook": "an http or https URL, or $NAME for that in an environment variable",
    "form": "'json', 'slack' or 'teams'",
    "resolved": "true or false",
    "every": "a time from '1s' on, such as '30s' or '5m'",
    "url": "the http or https address of the page, such as 'https://traces.example.com'",
    "state": "the path of a file",
    "rule": "tables, each under [[rule]]",
}
_OF_THE_FILE: Final = ("url", "webhook", "form", "resolved", "every", "state", "rule")
_OF_BOTH: Final = ("name", "where", "over", "experiment", "webhook", "form", "resolved")
_OF_A_LIMIT: Final = ("filter", "above", "min_traces")
_OF_A_VERDICT: Final = ("candidate", "baseline", "by", "stratify")


@dataclass(frozen=True, slots=True)
class Webhook:
    """Where messages are sent. Its path and query are secrets, which ``shown`` does not have."""

    endpoint: Endpoint = field(repr=False)
    form: Form

    @property
    def shown(self) -> str:
        """The address as it may be printed."""
        return self.endpoint.url


@dataclass(frozen=True, slots=True)
class Limit:
    """Fires above ``most``: a ``share`` of the traces, a ``count`` of them, or a ``quantile`` in ms.

    Of a ``share``, ``tree`` selects those that are counted. ``quantile`` is 0.95 for p95.
    """

    kind: Literal["share", "count", "quantile"]
    most: float
    tree: Node | None
    min_traces: int
    quantile: float = 0.0

    def __str__(self) -> str:
        matching = "" if self.tree is None else f" that match {format_filter(self.tree)}"
        if self.kind == "share":
            return f"more than {100 * self.most:g} % of traces{matching.replace(' that match', ' match', 1)}"
        if self.kind == "count":
            return f"more than {counted(int(self.most), 'trace')}{matching}"
        return f"p{100 * self.quantile:.0f} of traces{matching} above {self.most:g} ms"


@dataclass(frozen=True, slots=True)
class Pairing:
    """Fires where the candidate is worse; by default the value first seen last, and the one before it."""

    by: str
    candidate: str | None
    baseline: str | None
    stratify: str | None

    def __str__(self) -> str:
        return (
            f"{self.candidate or f'the newest {self.by}'} is worse than {self.baseline or 'the one before'}"
        )


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: it looks at the traces of the last ``over_ms`` that pass ``where``.

    An incident of it ends when it has not fired for ``over_ms``; ``resolved``: a message says so.
    """

    name: str
    check: Limit | Pairing
    over_ms: int
    webhook: Webhook
    where: Node | None = None
    experiment: str | None = None
    resolved: bool = True


@dataclass(frozen=True, slots=True)
class Rules:
    """All rules of a file; ``url`` is the address of the page, ``state`` the file of the incidents."""

    path: Path
    rules: tuple[Rule, ...]
    every_s: float
    url: str | None
    state: Path | None


def load_rules(path: str, environ: Mapping[str, str] = os.environ) -> Rules:
    """Read a file of rules.

    Raises:
        SettingsError: the file or a rule cannot be used; the message names the file, the rule and the key.
    """
    try:
        file = data_path(path)
        found = tomllib.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise SettingsError(f"the alerts in {visible(path)} cannot be read: {reason}") from None
    whole = _Table(file.name, found, environ)
    whole.check_keys(_OF_THE_FILE)
    tables = found.get("rule", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        whole.refuse("rule")
    names: set[str] = set()
    rules = []
    for place, table in enumerate(tables, 1):
        rule = _rule(whole, table, place)
        if rule.name in names:
            whole.of_rule(table, place).refuse("name")
        names.add(rule.name)
        rules.append(rule)
    state = whole.text("state")
    url = whole.text("url")
    if url is not None and not _is_page(url):
        whole.refuse("url")
    return Rules(
        file,
        tuple(rules),
        whole.age("every", 30_000, least=1000) / 1000,
        None if url is None else url.rstrip("/"),
        None if state is None else file.parent / Path(state).expanduser(),
    )


def _rule(whole: _Table, values: Mapping[str, Any], place: int) -> Rule:
    table = whole.of_rule(values, place)
    is_limit = any(key in values for key in _OF_A_LIMIT)
    is_pairing = any(key in values for key in _OF_A_VERDICT)
    if is_limit == is_pairing:
        raise SettingsError(
            f"{table.place}: it takes either 'above', with an optional filter, or a verdict: 'by',"
            " 'candidate' or 'baseline'"
        )
    table.check_keys(_OF_BOTH + (_OF_A_LIMIT if is_limit else _OF_A_VERDICT))
    name = table.text("name")
    if name is None or len(name) > _LONGEST_NAME or not name.isprintable():
        table.refuse("name")
    return Rule(
        name=name,
        check=_limit(table) if is_limit else _pairing(table),
        over_ms=table.age("over", 5 * _MINUTE_MS if is_limit else 24 * 60 * _MINUTE_MS, least=1000),
        webhook=table.over(whole).webhook(),
        where=table.filter("where"),
        experiment=table.text("experiment"),
        resolved=table.over(whole).flag("resolved", default=True),
    )


def _limit(table: _Table) -> Limit:
    above, tree = table.values.get("above"), table.filter("filter")
    least = table.values.get("min_traces", 30)
    if isinstance(least, bool) or not isinstance(least, int) or least < 1:
        table.refuse("min_traces")
    if isinstance(above, int) and not isinstance(above, bool) and above >= 0:
        return Limit("count", above, tree, least)
    if isinstance(above, str) and (found := _PERCENT.fullmatch(above.strip())) and float(found[1]) < 100:
        if tree is None:
            raise SettingsError(f"{table.place}: a share needs a filter: which of the traces are counted")
        return Limit("share", float(found[1]) / 100, tree, least)
    if isinstance(above, str) and (found := _QUANTILE.fullmatch(above.strip())):
        ms = float(found[2]) * (1000 if found[3] == "s" else 1)
        return Limit("quantile", ms, tree, least, int(found[1]) / 100)
    return table.refuse("above")


def _pairing(table: _Table) -> Pairing:
    stratify = table.text("stratify") or STRATIFY
    candidate, baseline = table.text("candidate"), table.text("baseline")
    if candidate is not None and candidate == baseline:
        raise SettingsError(f"{table.place}: candidate and baseline are both {candidate!r}")
    return Pairing(
        table.text("by") or keys.APP_VERSION, candidate, baseline, None if stratify == "none" else stratify
    )


@dataclass(frozen=True, slots=True)
class _Table:
    """One table of the file; ``place`` names it in errors."""

    place: str
    values: Mapping[str, Any]
    environ: Mapping[str, str]

    def of_rule(self, values: Mapping[str, Any], place: int) -> _Table:
        name = values.get("name")
        called = f"{name[:_LONGEST_NAME]!r}" if isinstance(name, str) and name else f"number {place}"
        return _Table(f"{self.place}: rule {called}", values, self.environ)

    def over(self, other: _Table) -> _Table:
        """This table, with the keys of another that it lacks."""
        return _Table(self.place, {**other.values, **self.values}, self.environ)

    def check_keys(self, known: Iterable[str]) -> None:
        for key in self.values:
            if key not in known:
                raise SettingsError(f"{self.place}: nothing is named {key!r}{did_you_mean(key, list(known))}")

    def refuse(self, key: str) -> NoReturn:
        """Say what a key takes."""
        if key not in self.values:
            raise SettingsError(f"{self.place}: there is no {key}: it takes {_TAKES[key]}")
        value = "(hidden)" if key in _SECRET else repr(self.values[key])
        shown = value if len(value) <= _MAX_SHOWN else f"{value[:_MAX_SHOWN]}…"
        raise SettingsError(f"{self.place}: {key} = {shown} cannot be used: it takes {_TAKES[key]}")

    def text(self, key: str) -> str | None:
        value = self.values.get(key)
        if value is not None and (not isinstance(value, str) or not value.strip() or "\0" in value):
            self.refuse(key)
        return value

    def flag(self, key: str, *, default: bool) -> bool:
        value = self.values.get(key, default)
        if not isinstance(value, bool):
            self.refuse(key)
        return value

    def age(self, key: str, default: int, *, least: int) -> int:
        text = self.text(key)
        milliseconds = default if text is None else age_ms(text)
        if milliseconds is None or not least <= milliseconds <= _LONGEST_MS:
            self.refuse(key)
        return milliseconds

    def filter(self, key: str) -> Node | None:
        text = self.text(key)
        try:
            return parse_search(text)
        except FilterError as error:
            raise SettingsError(f"{self.place}: {key}: {error}") from None

    def webhook(self) -> Webhook:
        url, form = self.text("webhook"), self.values.get("form", "json")
        if form not in get_args(Form):
            self.refuse("form")
        if url is not None and url.startswith("$"):
            name, url = url[1:], self.environ.get(url[1:], "")
            if not url:
                raise SettingsError(f"{self.place}: webhook: the variable {name!r} is not set")
        try:
            endpoint = Endpoint.parse(url or "", complete=False)
        except SettingsError:
            self.refuse("webhook")
        return Webhook(_hidden(endpoint), form)


def _hidden(endpoint: Endpoint) -> Endpoint:
    """The endpoint under a name without its path, which is what Slack and Teams know their clients by."""
    return replace(endpoint, url=f"{endpoint.scheme}://{endpoint.authority}/…")


def _is_page(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return (
            parts.scheme in {"http", "https"} and bool(parts.hostname) and not (parts.query or parts.fragment)
        )
    except ValueError:
        return False
