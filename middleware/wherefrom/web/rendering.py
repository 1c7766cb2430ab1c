"""Templates: their environment, filters and links, and untrusted text made safe to display."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from importlib import resources
from typing import Any, Final
from urllib.parse import quote

import orjson
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from .. import _units
from .._sanitize import visible, visible_lines, visible_prose
from ..analysis.description import spell_cost, spell_usage
from ..analysis.model_calls import calls_in_metadata
from ..analysis.verdicts import spell_change, spell_mean
from ..query import format_filter
from ..query.fields import SPAN_ATTRIBUTE, Operator, find_field, with_key
from ..query.tree import Compare
from . import plots
from .blocks import Room, blocks_of, raw
from .parameters import MOST_FOLDED, PageQuery, encode
from .trees import tree

MAX_SHOWN: Final = 2_000  # characters: a captured value may be a megabyte
_CHUNK: Final = 16_384  # bytes of HTML that are sent at once
_ELLIPSIS: Final = "…"
_LONGEST_FILTER: Final = 400  # characters in the link of each row


# The letter of each type of spans; wherefrom.css has their colours.
_BADGES: Final = {
    "SERVER": "S", "CLIENT": "C", "LLM": "L", "CHAT_MODEL": "M", "AGENT": "A", "CHAIN": "H", "TOOL": "T",
    "RETRIEVER": "R", "EMBEDDING": "E", "RERANKER": "K", "PARSER": "P", "MEMORY": "Y", "WORKFLOW": "W",
    "TASK": "J", "GUARDRAIL": "G", "EVALUATOR": "V",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Links:
    """Builds addresses below the mount point; ``query`` is that of the current page."""

    root: str
    path: str
    query: PageQuery

    def to(self, path: str, **parameters: Any) -> str:
        """The address of a page, with the current experiment."""
        query = encode({"experiment": self.query.experiment, **parameters})
        return f"{self.root}{quote(path)}{'?' if query else ''}{query}"

    def here(self, **changes: Any) -> str:
        """The current page with some parameters changed; ``None`` removes one."""
        return self._page("", **changes)

    def json(self) -> str:
        """The JSON twin of the current page."""
        return self._page(".json")

    def download(self, suffix: str) -> str:
        """The download of the current page with this suffix."""
        return self._page(f".{suffix}")

    def _page(self, suffix: str, **changes: Any) -> str:
        query = self.query.encoded(**changes)
        return f"{self.root}{quote(self.path)}{suffix}{'?' if query else ''}{query}"

    def trace(self, trace_id: str, span: str | None = None) -> str:
        """The page of a trace, with the filter and the time range of the current page.

        ``span`` is the id of the one in detail. A long filter is left out: a link in each row would make up
        most of the page.
        """
        kept = self.near()
        if len(kept.get("filter") or "") > _LONGEST_FILTER:
            del kept["filter"]
        return self.to(f"/traces/{trace_id}", **kept, span=span)

    def span(self, trace_id: str, span_id: str, anchor: str = "span", **changes: Any) -> str:
        """The page of a trace with a span in detail and in sight, and the parameters of the current page.

        ``changes`` are other parameters. A long filter is left out, as by ``trace``.
        """
        kept = {**self.query.given, "span": span_id, "page": None, **changes}
        if len("".join(kept.get("filter") or "")) > _LONGEST_FILTER:
            del kept["filter"]
        return f"{self.root}{quote(f'/traces/{trace_id}')}?{encode(kept)}#{quote(f'{anchor}-{span_id}')}"

    def near(self) -> dict[str, Any]:
        """The parameters of the filter and the time range of the current page."""
        names = ("filter", "since", "until")
        return {name: value for name in names if (value := getattr(self.query, name, None)) is not None}

    def session(self, session_id: str) -> str:
        """The page of a session."""
        return self.to("/session", id=session_id)

    def static(self, name: str) -> str:
        """A static file; its address changes with its content."""
        return f"{self.root}/static/{name}?{_digest(name)}"


@functools.cache
def _digest(name: str) -> str:
    content = resources.files(__package__).joinpath("static", name).read_bytes()
    return blake2b(content, digest_size=6).hexdigest()


def render(template: str, context: Mapping[str, Any]) -> str:
    """The rendered template."""
    return _environment().get_template(template).render(context)


def stream(template: str, context: Mapping[str, Any]) -> Iterator[str]:
    """The rendered template in pieces; ``flush()`` in the template ends a piece."""
    pieces: list[str] = []
    size = 0
    for piece in _environment().get_template(template).generate(context):
        pieces.append(piece)
        size += len(piece)
        if size >= _CHUNK or piece == _FLUSH:
            yield "".join(pieces).replace(_FLUSH, "")
            pieces.clear()
            size = 0
    yield "".join(pieces)


_FLUSH: Final = "\0"


def shown(value: object, most: int = MAX_SHOWN) -> str:
    """Untrusted text on one line: invisible characters are escaped, long text is truncated."""
    text = str(value)
    return visible(text if len(text) <= most else text[:most]) + (_ELLIPSIS if len(text) > most else "")


def shown_lines(value: object, most: int = MAX_SHOWN) -> str:
    """Untrusted text with its line breaks, otherwise as ``shown``."""
    text = str(value)
    cut = text if len(text) <= most else text[:most]
    return "\n".join(visible_lines(cut)) + (_ELLIPSIS if len(text) > most else "")


def shown_prose(value: object, most: int = MAX_SHOWN) -> str:
    """Untrusted text of a language with its line breaks, otherwise as ``shown``."""
    text = str(value)
    return visible_prose(text if len(text) <= most else text[:most]) + (_ELLIPSIS if len(text) > most else "")


def preview(value: object, most: int) -> Markup:
    """The beginning of ``shown_prose`` on one line, in a ``bdi`` element."""
    text = str(value)
    line = " ".join(text[: 4 * most].split())
    rest = _ELLIPSIS if len(line) > most or len(text) > 4 * most else ""
    return _isolated(visible_prose(line[:most]) + rest)


@dataclass(frozen=True, slots=True)
class Written:
    """A value as text, of which the last ``cut`` characters are missing."""

    text: str
    cut: int


def pretty(value: object, most: int = MAX_SHOWN) -> Written:
    """A JSON value as text: a string unchanged, any other value as indented JSON."""
    written = value if isinstance(value, str) else orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()
    return Written(shown_lines(written, most), max(len(written) - most, 0))


def text(value: object, most: int = MAX_SHOWN) -> Markup:
    """``shown`` in a ``bdi`` element, which isolates its writing direction."""
    return _isolated(shown(value, most))


def _isolated(text: str) -> Markup:
    # Markup.format takes twenty times as long, and a page has a thousand of these.
    return Markup(f"<bdi>{escape(text)}</bdi>")  # noqa: S704 - it was escaped


def moment(ms: int, form: str = "") -> Markup:
    """A time in UTC; the script of the page converts it to the time zone of the browser.

    ``form`` is ``short`` for narrow columns.
    """
    spoken, machine = _units.spoken_utc(ms), iso_utc(ms)
    if machine is None:
        return escape(spoken)
    written = spoken[5:19] if form == "short" else spoken
    attributes = f'datetime="{machine}" title="{escape(spoken)}" data-form="{escape(form)}"'
    return Markup(f"<time {attributes}>{escape(written)}</time>")  # noqa: S704 - all of it was escaped


def outcome(word: str) -> Markup:
    """An outcome in words: ``client_closed`` becomes ``client closed``."""
    return text(word.replace("_", " "), 40)


def condition(field: str, value: str) -> str:
    """The filter for one value of a field, such as ``user`` or ``metadata.app_version``."""
    family, dot, key = field.partition(".")
    found = find_field(family, key) if dot else find_field(None, field)
    return format_filter(Compare(found, Operator.EQ, value))


def attribute_condition(key: str, value: Any) -> str | None:
    """The filter for one value of a span's attribute; ``None`` where there is none, as for an object."""
    if isinstance(value, (dict, list)) or value is None or len(key) + len(str(value)) > _LONGEST_FILTER:
        return None
    spelled = value if isinstance(value, str) else orjson.dumps(value).decode()
    return format_filter(Compare(with_key(SPAN_ATTRIBUTE, key), Operator.EQ, spelled))


def iso_utc(ms: int) -> str | None:
    """``2026-11-25T22:09:59.123Z``; ``None`` beyond the range of the calendar."""
    found = _units.utc(ms)
    return None if found is None else f"{found:%Y-%m-%dT%H:%M:%S}.{ms % 1000:03}Z"


def milliseconds(ms: float | None) -> str:
    """A duration in ms as text with a unit; empty for ``None``."""
    return "" if ms is None else _units.duration(ms * 1e6)


def percent(share: float) -> str:
    """``0``, ``0.12 %``, ``3.4 %`` or ``100 %``."""
    value = share * 100
    return f"{value:.2f} %" if 0 < value < 1 else f"{value:.1f} %".replace(".0 %", " %")


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader(__package__, "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        shown=shown,
        shown_lines=shown_lines,
        shown_prose=shown_prose,
        pretty=pretty,
        preview=preview,
        text=text,
        moment=moment,
        utc=_units.spoken_utc,
        iso=lambda ms: iso_utc(ms) or ms,
        outcome=outcome,
        condition=condition,
        ms=milliseconds,
        ns=_units.duration,
        percent=percent,
        size=_units.size,
        counted=_units.counted,
        blocks=blocks_of,
        raw=raw,
        tree=tree,
        cost=spell_cost,
        dollars=_units.dollars,
        usage=spell_usage,
        calls=calls_in_metadata,
        attribute=attribute_condition,
        mean=lambda amount: spell_mean(amount, amount.mean),
        change=spell_change,
    )
    environment.globals["flush"] = lambda: _FLUSH
    environment.globals["room"] = Room
    environment.globals["plots"] = plots
    environment.globals["badges"] = _BADGES
    environment.globals["most_folded"] = MOST_FOLDED
    return environment
