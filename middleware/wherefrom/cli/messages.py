"""Conversations in the terminal: the earlier messages on one line each, and the last turn in full."""

from __future__ import annotations

from typing import Final

from rich.text import Text

from .._sanitize import visible, visible_prose
from .._units import counted, size
from ..messages.content import (
    MEDIA,
    SYSTEM,
    USER,
    Conversation,
    Message,
    Part,
    join_results,
    spell_call,
)
from ..messages.conversation import main_span, read_span
from ..model import Trace
from .terminal import Terminal, styled

_STYLES: Final = {SYSTEM: "magenta", USER: "bold cyan", "assistant": "bold green", "tool": "yellow"}
_LINES: Final = 40
_RESULT_LINES: Final = 6
_EARLIER: Final = 20
_MOST: Final = 20_000  # characters of one text


def conversation_of(trace: Trace) -> Conversation | None:
    """The conversation that stands for a trace; ``None`` if it has none."""
    spans = trace.data.spans
    known = {span.span_id: one for span in spans if (one := read_span(span)) is not None}
    main = main_span(spans, known)
    return None if main is None else known[main]


def print_conversation(terminal: Terminal, conversation: Conversation) -> None:
    """Print the messages: those before the last one of the user on one line each."""
    about = ", ".join(map(visible, filter(None, (conversation.model, *conversation.finish_reasons))))
    terminal.title(f"Conversation{f' ({about})' if about else ''}")
    messages = join_results((*conversation.asked, *conversation.answers))
    last = next((at for at in reversed(range(len(messages))) if messages[at].role == USER), 0)
    earlier, turn = messages[:last], messages[last:]
    if len(earlier) > _EARLIER:
        left_out = counted(len(earlier) - _EARLIER, "earlier message")
        terminal.line(f"  {left_out}: use --json", style="dim")
    for message in earlier[-_EARLIER:]:
        line = " ".join((message.text or _first_call(message))[:_MOST].split())
        text = Text.assemble(
            _who(message), " ", styled(line), (f"  {counted(message.size, 'character')}", "dim")
        )
        terminal.paragraph(text, indent=2, most=1)
    for message in turn:
        terminal.paragraph(_who(message), indent=2)
        for part in message.parts:
            _print_part(terminal, part, 4)
    if conversation.is_request_cut or conversation.is_response_cut:
        which = "request" if conversation.is_request_cut else "response"
        terminal.line(f"  The recorded {which} ends early.", style="dim")


def _who(message: Message) -> Text:
    name = f" {message.name}" if message.name else ""
    return styled(f"{message.role}{name}", _STYLES.get(message.role, "bold"))


def _first_call(message: Message) -> str:
    return next((spell_call(part) for part in message.parts if part.kind == "tool_call"), "")


def _print_part(terminal: Terminal, part: Part, indent: int) -> None:
    import orjson

    if part.kind == "tool_call":
        terminal.paragraph(styled(spell_call(part)[:_MOST], "yellow"), indent=indent, most=_RESULT_LINES)
        for result in part.parts:
            _print_part(terminal, result, indent)
    elif part.kind == "tool_result":
        mark = "✗ failed" if part.is_error else "→"
        terminal.paragraph(styled(mark, "red" if part.is_error else "dim"), indent=indent + 2)
        for inner in part.parts:
            _print_part(terminal, inner, indent + 4)
    elif part.kind in MEDIA:
        about = filter(
            None, (part.kind, part.mime, part.name, None if part.size is None else size(part.size))
        )
        terminal.paragraph(styled(f"[{', '.join(about)}]", "dim"), indent=indent)
    elif part.kind == "data":
        terminal.paragraph(
            styled(orjson.dumps(part.data).decode()[:_MOST], "dim"), indent=indent, most=_RESULT_LINES
        )
    elif part.text:
        style = "dim" if part.kind == "reasoning" else ""
        text = Text(visible_prose(part.text[:_MOST]), style=style)
        terminal.paragraph(text, indent=indent, most=_RESULT_LINES if style else _LINES)
