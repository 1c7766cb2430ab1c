"""Reads conversations from the attributes and events of OpenTelemetry's GenAI conventions.

These are the current ``gen_ai.input.messages`` and ``gen_ai.output.messages``, on a span or on an event; the
events for each message of before; and the numbered attributes (``gen_ai.prompt.0.content``) of OpenLLMetry
and OpenInference (``llm.input_messages.0.message.content``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from ..model import SpanEvent
from .content import ASSISTANT, SYSTEM, USER, Message, Reading
from .parts import read_content, read_json, text_in
from .shapes import read_message, read_messages

_INPUT: Final = "gen_ai.input.messages"
_OUTPUT: Final = "gen_ai.output.messages"
_SYSTEM: Final = "gen_ai.system_instructions"
_FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
_MODEL: Final = ("gen_ai.response.model", "gen_ai.request.model", "mlflow.llm.model", "llm.model_name")
_NUMBERED_INPUT: Final = ("gen_ai.prompt.", "llm.input_messages.")
_NUMBERED_OUTPUT: Final = ("gen_ai.completion.", "llm.output_messages.")
_ROLE_OF_EVENT: Final = {
    "gen_ai.system.message": SYSTEM,
    "gen_ai.user.message": USER,
    "gen_ai.assistant.message": ASSISTANT,
    "gen_ai.tool.message": "tool",
}
_CHOICE: Final = "gen_ai.choice"
_CONTENT_EVENTS: Final = {
    "gen_ai.content.prompt": "gen_ai.prompt",
    "gen_ai.content.completion": "gen_ai.completion",
}
_MOST: Final = 1_000  # messages, and the numbers in names of attributes

Attributes = Mapping[str, Any]


def model_in_attributes(attributes: Attributes) -> str | None:
    """The model that answered, else the one that was asked for."""
    return text_in(attributes, *_MODEL)


def read_attributes(
    attributes: Attributes, events: Sequence[SpanEvent]
) -> tuple[Reading | None, Reading | None]:
    """What was asked, and what was answered; ``None`` for either that is not there."""
    if not any(event.name.startswith("gen_ai.") for event in events) and not any(
        name.startswith(("gen_ai.", "llm.")) for name in attributes
    ):
        return None, None
    asked: list[Message] = []
    answers: list[Message] = []
    reasons: list[str] = []
    for given in _places(attributes, events):
        output = read_json(given.get(_OUTPUT))
        # A span and its event may both have all of them.
        asked = asked or list(_read(given.get(_INPUT)))
        answers = answers or list(_read(output))
        reasons = reasons or _reasons(output)
    asked = [*read_system(attributes, events), *asked]
    if not asked and not answers:
        asked, answers, reasons = _of_events(events)
    asked = asked or list(_read(_numbered(attributes, _NUMBERED_INPUT)))
    answers = answers or list(_read(_numbered(attributes, _NUMBERED_OUTPUT)))
    told = tuple(dict.fromkeys(reasons)) or read_reasons(attributes)
    return (
        Reading(tuple(asked)) if asked else None,
        Reading(tuple(answers), None, told) if answers else None,
    )


def read_system(attributes: Attributes, events: Sequence[SpanEvent]) -> tuple[Message, ...]:
    """The system prompt, which the current convention keeps apart from the messages."""
    found = (_system(given.get(_SYSTEM)) for given in _places(attributes, events))
    return next(filter(None, found), ())


def read_reasons(attributes: Attributes) -> tuple[str, ...]:
    """Why the answers ended."""
    told = attributes.get(_FINISH_REASONS)
    found = (reason for reason in told if isinstance(reason, str)) if isinstance(told, list) else ()
    return tuple(dict.fromkeys(found))


def _places(attributes: Attributes, events: Sequence[SpanEvent]) -> Iterator[Attributes]:
    yield attributes
    for event in events:
        if event.name.startswith("gen_ai."):
            yield event.attributes


def _read(value: Any) -> tuple[Message, ...]:
    found = read_messages(read_json(value)) if value else None
    return found or ()


def _system(value: Any) -> tuple[Message, ...]:
    parts = tuple(read_content(read_json(value)))
    return (Message(SYSTEM, parts),) if parts else ()


def _reasons(messages: Any) -> list[str]:
    items = messages if isinstance(messages, list) else ()
    found = (item.get("finish_reason") for item in items if isinstance(item, dict))
    return [reason for reason in found if isinstance(reason, str)]


def _of_events(events: Sequence[SpanEvent]) -> tuple[list[Message], list[Message], list[str]]:
    """The messages of the events that there is one of for each message."""
    asked: list[Message] = []
    answers: list[Message] = []
    reasons: list[str] = []
    for event in events[:_MOST]:
        if event.name in _CONTENT_EVENTS:
            found = _read(event.attributes.get(_CONTENT_EVENTS[event.name]))
            (asked if event.name.endswith("prompt") else answers).extend(found)
        elif event.name == _CHOICE:
            body = _body(event)
            inner = read_json(body.get("message"))
            body |= inner if isinstance(inner, dict) else {"content": inner} if inner is not None else {}
            answers += _message(body, ASSISTANT)
            reasons += _reasons([body])
        elif event.name in _ROLE_OF_EVENT:
            asked += _message(_body(event), _ROLE_OF_EVENT[event.name])
    return asked, answers, reasons


def _body(event: SpanEvent) -> dict[str, Any]:
    """What an event says: its attributes, or the JSON in one of them."""
    for name in ("gen_ai.event.content", "body", "event_body"):
        inner = read_json(event.attributes.get(name))
        if isinstance(inner, dict):
            return dict(inner)
    names = ("content", "tool_calls", "message", "parts")
    return {key: read_json(value) if key in names else value for key, value in event.attributes.items()}


def _message(body: Mapping[str, Any], role: str) -> Iterator[Message]:
    message = read_message({"content": None, **body, "role": body.get("role") or role})
    if message is not None:
        yield message


def _numbered(attributes: Attributes, prefixes: Sequence[str]) -> list[Any]:
    """The list that numbered attributes spell: ``gen_ai.prompt.0.tool_calls.1.name`` is a name in a call."""
    root: dict[str, Any] = {}
    for key, value in attributes.items():
        prefix = next((prefix for prefix in prefixes if key.startswith(prefix)), None)
        if prefix is None:
            continue
        *path, last = key.removeprefix(prefix).split(".")
        place = root
        for name in path[:_DEEPEST]:
            inner = place.setdefault(name, {})
            if not isinstance(inner, dict):
                break
            place[name] = dict(inner)  # it may be the recorded value of another attribute
            place = place[name]
        place[last] = value
    found = _as_lists(root)
    return found if isinstance(found, list) else []


_DEEPEST: Final = 12


def _as_lists(value: Any) -> Any:
    """Objects whose keys are all numbers as lists."""
    if not isinstance(value, dict):
        return value
    items = {key: _as_lists(item) for key, item in value.items()}
    if items and all(key.isdecimal() and len(key) <= 4 for key in items):
        return [items[key] for key in sorted(items, key=int)]
    # OpenInference puts an object around each message, its blocks and its calls.
    for name in ("message", "message_content"):
        if isinstance(items.get(name), dict) and len(items) == 1:
            return items[name]
    return items
