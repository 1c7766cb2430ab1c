"""Conversations as blocks to display, and the Markdown in them as sanitized HTML."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import nh3
import orjson
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markupsafe import Markup

from .._sanitize import visible, visible_json, visible_prose
from ..messages.content import (
    ASSISTANT,
    MEDIA,
    SYSTEM,
    TOOL,
    USER,
    Conversation,
    Message,
    Part,
    join_results,
    spell_arguments,
)
from ..messages.parts import read_json

_ROLES: Final = {SYSTEM: "System", USER: "User", ASSISTANT: "Assistant", TOOL: "Tool"}
_TAGS: Final = {
    "p", "br", "hr", "strong", "em", "s", "code", "pre", "ul", "ol", "li", "blockquote", "a",
    "table", "thead", "tbody", "tr", "th", "td",
}  # fmt: skip
_ATTRIBUTES: Final = {"a": {"href"}, "ol": {"start"}, "p": {"class"}, "pre": {"tabindex"}}
_SCHEMES: Final = {"http", "https", "mailto"}
# Longer texts take a second to format, and so does one of brackets, in which links are looked for.
_MOST_MARKDOWN: Final = 20_000
_MOST_BRACKETS: Final = 400
_MOST_CELLS: Final = 5_000
_LINE: Final = 120
_CALL: Final = 160
_RAW: Final = 60_000
_MOST_MESSAGES: Final = 400


@dataclass(slots=True)
class Room:
    """How many characters of a page are left: ``markdown`` for formatted text, ``text`` for all text."""

    markdown: int = 60_000
    text: int = 300_000


@dataclass(frozen=True, slots=True)
class Said:
    """One text, ``html`` if it is formatted; the last ``cut`` characters of ``text`` are missing."""

    html: Markup | None
    text: str
    cut: int


@dataclass(frozen=True, slots=True)
class Piece:
    """One part of a message as it is displayed; ``label`` is its kind, or what is called."""

    kind: str
    label: str = ""
    said: Said | None = None
    data: Any = None
    is_error: bool = False
    results: tuple[Piece, ...] = ()


@dataclass(frozen=True, slots=True)
class Block:
    """One message; ``line`` stands for it while it is folded, and ``size`` is its number of characters."""

    role: str
    title: str
    line: str
    size: int
    is_open: bool
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class Raw:
    """A value as JSON, which reads back as what was recorded; ``text`` is ``None`` if it is too large."""

    text: str | None
    size: int


def blocks_of(
    conversation: Conversation, room: Room | None = None, *, is_turn: bool = False
) -> Iterator[Block]:
    """The messages: the last one of the user and all after it are open, and the others folded.

    With ``is_turn``, only those that are open.
    """
    room = room or Room()
    asked = len(conversation.asked)
    messages = join_results((*conversation.asked, *conversation.answers))
    last = max((at for at, one in enumerate(messages) if one.role == USER), default=0)
    if not any(one.role == USER for one in messages) and asked:
        last = next((at for at, one in enumerate(messages) if one.role != SYSTEM), 0)
    for at, message in enumerate(messages):
        is_open = at >= last and message.role != SYSTEM
        if (is_open or not is_turn) and (at < _MOST_MESSAGES or is_open):
            yield _block(message, room, is_open=is_open)


def _block(message: Message, room: Room, *, is_open: bool) -> Block:
    title = _ROLES.get(message.role, message.role)
    name = f" {message.name}" if message.name else ""
    pieces = tuple(_piece(part, room) for part in message.parts)
    first = message.text[: 4 * _LINE] or next((one.label for one in pieces if one.label), "")
    line = " ".join(first.split())
    line = line[:_LINE] + ("…" if len(line) > _LINE else "")
    role = message.role if message.role in _ROLES else "other"
    return Block(role, visible((title + name)[:_LINE]), visible(line), message.size, is_open, pieces)


def _piece(part: Part, room: Room) -> Piece:
    kind = part.kind
    if kind == "tool_call":
        arguments = spell_arguments(part.arguments)
        shown = arguments[:_CALL] + ("…" if len(arguments) > _CALL else "")
        label = visible(f"{(part.name or 'tool')[:_LINE]}({shown})")
        results = tuple(_piece(one, room) for one in part.parts)
        return Piece(kind, label, data=part.arguments, results=results)
    if kind == "tool_result":
        results = tuple(_result(one, room) for one in part.parts)
        return Piece(kind, visible((part.name or "")[:_LINE]), is_error=part.is_error, results=results)
    if kind in MEDIA:
        said = None if part.text is None else _said(part.text, room)
        return Piece(kind, visible(" ".join(filter(None, (part.mime, part.name)))), said, part.size)
    if kind == "data":
        return Piece(kind, data=part.data)
    label = "encrypted" if kind == "reasoning" and not part.text else ""
    return Piece(kind, label, _said(part.text or "", room))


def _result(part: Part, room: Room) -> Piece:
    """A part of a tool's result: text that is JSON is data."""
    value = read_json(part.text) if part.kind == "text" else part.text
    return _piece(part if value is part.text else Part("data", data=value), room)


def _said(text: str, room: Room) -> Said:
    kept = text[: max(room.text, 0)]
    room.text -= len(kept)
    shown = visible_prose(kept)
    html = None
    is_short = len(kept) == len(text) <= min(_MOST_MARKDOWN, room.markdown)
    if is_short and text.count("[") <= _MOST_BRACKETS and (cells := _most_cells(text)) <= _MOST_CELLS:
        room.markdown -= max(len(text), cells)
        html = markdown(shown)
    return Said(html, shown, len(text) - len(kept))


def _most_cells(text: str) -> int:
    """How many cells a table in the text may have: each row has those of the first."""
    lines = text.splitlines()
    return max((line.count("|") for line in lines), default=0) * len(lines)


def raw(value: Any) -> Raw:
    """A recorded value as JSON."""
    text = orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()
    return Raw(visible_json(text) if len(text) <= _RAW else None, len(text))


def markdown(text: str) -> Markup:
    """Markdown as HTML of a few harmless elements; HTML in it is text, and images are not loaded."""
    html = nh3.clean(
        _parser().render(text),
        tags=_TAGS,
        attributes=_ATTRIBUTES,
        allowed_classes={},
        url_schemes=_SCHEMES,
        link_rel="noopener noreferrer nofollow external",
    )
    return Markup(html)  # noqa: S704 - of the allow-list


@functools.cache
def _parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"]).disable("image")
    # A heading in a message is no heading of the page, and code can be scrolled with the keyboard.
    parser.add_render_rule("heading_open", _open_heading)
    parser.add_render_rule("heading_close", _close_heading)
    parser.add_render_rule("fence", _code)
    parser.add_render_rule("code_block", _code)
    return parser


def _open_heading(_renderer: RendererHTML, *_: Any) -> str:
    return "<p><strong>"


def _close_heading(_renderer: RendererHTML, *_: Any) -> str:
    return "</strong></p>"


def _code(_renderer: RendererHTML, tokens: Any, index: int, *_: Any) -> str:
    return str(Markup('<pre tabindex="0"><code>{}</code></pre>').format(tokens[index].content))
