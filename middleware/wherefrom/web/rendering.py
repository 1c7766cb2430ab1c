"""From a view to HTML: the templates, what they may call, and text of strangers made safe to show."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from importlib import resources
from typing import Any, Final
from urllib.parse import quote

import orjson
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from .. import _units
from .._sanitize import visible, visible_lines
from ..query import format_filter
from ..query.fields import Operator, find_field
from ..query.tree import Compare
from . import plots
from .parameters import Parameters, encode

MAX_SHOWN: Final = 2_000
_CHUNK: Final = 16_384
_ELLIPSIS: Final = "…"


@dataclass(frozen=True, slots=True)
class Links:
    """Makes addresses below where the page is mounted; ``query`` is what this page was asked."""

    root: str
    path: str
    query: Parameters

    def to(self, path: str, **parameters: Any) -> str:
        """The address of a page; the experiment that is looked at stays the same."""
        query = encode({"experiment": self.query.text("experiment"), **parameters})
        return f"{self.root}{quote(path)}{'?' if query else ''}{query}"

    def here(self, **changes: Any) -> str:
        """This page, with some parameters changed; ``None`` leaves one out."""
        query = self.query.query(**changes)
        return f"{self.root}{quote(self.path)}{'?' if query else ''}{query}"

    def json(self) -> str:
        """The JSON twin of this page."""
        query = self.query.query()
        return f"{self.root}{quote(self.path)}.json{'?' if query else ''}{query}"

    def download(self, suffix: str) -> str:
        """A file made of what this page shows."""
        query = self.query.query()
        return f"{self.root}{quote(self.path)}.{suffix}{'?' if query else ''}{query}"

    def session(self, session_id: str) -> str:
        """Where a session is shown."""
        return self.to("/session", id=session_id)

    def static(self, name: str) -> str:
        """A file that comes with the page; its address changes with its content."""
        return f"{self.root}/static/{name}?{_digest(name)}"


@functools.cache
def _digest(name: str) -> str:
    content = resources.files(__package__).joinpath("static", name).read_bytes()
    return blake2b(content, digest_size=6).hexdigest()


def render(template: str, context: Mapping[str, Any]) -> str:
    """The whole of a template."""
    return _environment().get_template(template).render(context)


def stream(template: str, context: Mapping[str, Any]) -> Iterator[str]:
    """The template piece by piece; it says where a piece should go out at once with ``flush()``."""
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
    """Text of a stranger on one line: what cannot be seen is written out, what is too long is cut."""
    text = str(value)
    return visible(text if len(text) <= most else text[:most]) + (_ELLIPSIS if len(text) > most else "")


def shown_lines(value: object, most: int = MAX_SHOWN) -> str:
    """Text of a stranger on as many lines as it has."""
    text = str(value)
    cut = text if len(text) <= most else text[:most]
    return "\n".join(visible_lines(cut)) + (_ELLIPSIS if len(text) > most else "")


@dataclass(frozen=True, slots=True)
class Written:
    """A value as text, and whether that is only its beginning."""

    text: str
    is_cut: bool


def pretty(value: object, most: int = MAX_SHOWN) -> Written:
    """Any JSON value as text to read: a string as it is, anything else as JSON on lines of its own."""
    written = value if isinstance(value, str) else orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()
    return Written(shown_lines(written, most), len(written) > most)


def text(value: object, most: int = MAX_SHOWN) -> Markup:
    """``shown`` in an element of its own: no direction of writing leaks out of it."""
    return Markup("<bdi>{}</bdi>").format(shown(value, most))


def moment(ms: int, form: str = "") -> Markup:
    """A time: UTC without JavaScript and in the title, in the zone of the viewer with it.

    ``form`` is ``short`` where there is little room.
    """
    spoken, machine = spoken_utc(ms), iso_utc(ms)
    if machine is None:
        return escape(spoken)
    written = spoken[5:19] if form == "short" else spoken
    return Markup('<time datetime="{}" title="{}" data-form="{}">{}</time>').format(
        machine, spoken, form, written
    )


def outcome(word: str) -> Markup:
    """How a request ended, in words: ``client_closed`` is ``client closed``."""
    return text(word.replace("_", " "), 40)


def condition(field: str, value: str) -> str:
    """The filter that asks for one value of a field, such as ``user`` or ``metadata.app_version``."""
    family, dot, key = field.partition(".")
    found = find_field(family, key) if dot else find_field(None, field)
    return format_filter(Compare(found, Operator.EQ, value))


def spoken_utc(ms: int) -> str:
    """``2026-11-25 22:09:59.123 UTC``."""
    found = _utc(ms)
    return f"{ms} ms since 1970" if found is None else f"{found:%Y-%m-%d %H:%M:%S}.{ms % 1000:03} UTC"


def iso_utc(ms: int) -> str | None:
    """``2026-11-25T22:09:59.123Z``; ``None`` where no calendar reaches."""
    found = _utc(ms)
    return None if found is None else f"{found:%Y-%m-%dT%H:%M:%S}.{ms % 1000:03}Z"


def _utc(ms: int) -> datetime | None:
    try:
        return datetime.fromtimestamp(ms // 1000, UTC)
    except (OverflowError, ValueError, OSError):
        return None


def milliseconds(ms: float | None) -> str:
    """A duration given in ms, with its unit; empty where there is none."""
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
        pretty=pretty,
        text=text,
        moment=moment,
        utc=spoken_utc,
        iso=lambda ms: iso_utc(ms) or ms,
        outcome=outcome,
        condition=condition,
        ms=milliseconds,
        ns=_units.duration,
        percent=percent,
        size=_units.size,
        counted=_units.counted,
    )
    environment.globals["flush"] = lambda: _FLUSH
    environment.globals["figures"] = plots
    return environment
