"""The conversation of a span, and the one that stands for a trace."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from ..model import Span, SpanEvent
from .attributes import model_in_attributes, read_attributes, read_reasons, read_system
from .bodies import abridged, parse_body
from .content import ASSISTANT, SYSTEM, USER, Conversation, Message, Part, Reading
from .parts import read_content
from .shapes import UNREADABLE, read_value
from .streams import assemble_text
from .usage import usage_in_attributes

_DEEPEST: Final = 64
_MOST_CALLS: Final = 4
CONVERSING: Final = frozenset({"LLM", "CHAT_MODEL", "AGENT"})
"""The types of spans that ask a model."""
_MODEL: Final = "gen_ai.request.model"


def read_span(span: Span) -> Conversation | None:
    """The conversation in inputs, outputs, attributes and events of a span; ``None`` if there is none.

    Never raises, whatever was recorded.
    """
    return read_conversation(span.inputs, span.outputs, span.attributes, span.events)


def read_conversation(
    inputs: Any, outputs: Any, attributes: Mapping[str, Any] | None = None, events: Sequence[SpanEvent] = ()
) -> Conversation | None:
    """The conversation in what was recorded of one operation."""
    try:
        return _read(inputs, outputs, attributes or {}, events)
    except UNREADABLE:
        return None


def _read(
    inputs: Any, outputs: Any, attributes: Mapping[str, Any], events: Sequence[SpanEvent]
) -> Conversation | None:
    asked, answered = read_value(inputs), read_value(outputs)
    if asked is None or answered is None:
        told_asked, told_answered = read_attributes(attributes, events)
        asked, answered = asked or told_asked, answered or told_answered
    if asked is None and answered is None:
        return None
    asked = asked or Reading(_other(inputs, USER))
    if not any(message.role == SYSTEM for message in asked.messages):
        asked = replace(asked, messages=(*read_system(attributes, events), *asked.messages))
    answered = answered or _other_answer(outputs)
    answers = answered.messages
    if len(answers) > len(asked.messages) and answers[: len(asked.messages)] == asked.messages:
        answers = answers[len(asked.messages) :]  # of a function that returns the whole conversation
    return Conversation(
        asked.messages,
        answers,
        answered.model or model_in_attributes(attributes) or asked.model,
        answered.finish_reasons or read_reasons(attributes),
        usage_in_attributes(attributes) or answered.usage,
        asked.is_cut,
        answered.is_cut,
    )


def _other_answer(outputs: Any) -> Reading:
    """The answer in outputs of no known shape: text, pieces of text, or data."""
    if isinstance(outputs, list) and (text := assemble_text(outputs)) is not None:
        return Reading((Message(ASSISTANT, (Part("text", text),)),))
    body = parse_body(outputs) if isinstance(outputs, str) else None
    if body is not None and isinstance(body.value, list) and (text := assemble_text(body.value)) is not None:
        return Reading((Message(ASSISTANT, (Part("text", text),)),), is_cut=body.is_cut)
    return Reading(_other(outputs, ASSISTANT))


def _other(value: Any, role: str) -> tuple[Message, ...]:
    """The other half of a conversation: an object with one text in it says that."""
    if value in (None, "", {}, []):
        return ()
    if isinstance(value, dict) and len(texts := [item for item in value.values() if item is not None]) == 1:
        value = texts[0] if isinstance(texts[0], str) else value
    parts = tuple(read_content(value)) if isinstance(value, str) else (Part("data", data=value),)
    return (Message(role, parts),)


def main_span(spans: Sequence[Span], conversations: Mapping[str, Conversation]) -> str | None:
    """The id of the span whose conversation stands for the trace; ``conversations`` are by span id.

    That is the outermost one with question and answer that was recorded in full, and of several the last: an
    agent's last call holds what the earlier ones asked and answered.
    """
    parents = {span.span_id: span.parent_id for span in spans} if conversations else {}

    def rank(span: Span) -> tuple[bool, bool, int, int]:
        found = conversations[span.span_id]
        is_cut = found.is_request_cut or found.is_response_cut
        return bool(found.asked and found.answers), not is_cut, -_depth(span, parents), span.start_time_ns

    best = max((span for span in spans if span.span_id in conversations), key=rank, default=None)
    return None if best is None else best.span_id


def conversation_of_call(spans: Sequence[Span]) -> Conversation | None:
    """The conversation of the last of the outermost model calls that has one; long texts are abridged.

    Four calls are looked into, and no other span. A client's own span of a call, which holds no messages, may
    be beside the one of an instrumentation.
    """
    calls = [span for span in spans if span.span_type in CONVERSING or _MODEL in span.attributes]
    parents = {span.span_id: span.parent_id for span in spans} if calls else {}
    calls.sort(key=lambda span: (_depth(span, parents), -span.start_time_ns))
    found = (
        read_conversation(abridged(call.inputs), abridged(call.outputs), call.attributes, call.events)
        for call in calls[:_MOST_CALLS]
    )
    return next((conversation for conversation in found if conversation is not None), None)


def _depth(span: Span, parents: Mapping[str, str | None]) -> int:
    """How deep a span is, at most 64; ``parents`` are by span id."""
    depth, above = 0, span.parent_id
    while above is not None and above in parents and depth < _DEEPEST:
        depth, above = depth + 1, parents[above]
    return depth
