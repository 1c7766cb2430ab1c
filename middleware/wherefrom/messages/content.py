"""What a conversation consists of: messages of parts, as plain data."""

from __future__ import annotations

import json
from collections import deque
from dataclasses import dataclass, replace
from typing import Any, Final

import orjson

SYSTEM: Final = "system"
USER: Final = "user"
ASSISTANT: Final = "assistant"
TOOL: Final = "tool"
MEDIA: Final = frozenset({"image", "audio", "video", "file"})
_MOST_ODD: Final = 2_000


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a message.

    ``kind`` is ``text``, ``reasoning``, ``refusal``, ``tool_call``, ``tool_result``, ``image``, ``audio``,
    ``video``, ``file``, or ``data`` for anything else, which ``data`` holds as it was recorded. ``name`` is
    that of the tool or the file, or the address of the file. ``id`` is that of the tool call, on its result
    too. ``arguments`` is JSON, or text that is not JSON. ``parts`` are the content of a result, or the
    result of a call. ``size`` is in bytes.
    """

    kind: str
    text: str | None = None
    name: str | None = None
    id: str | None = None
    arguments: Any = None
    parts: tuple[Part, ...] = ()
    is_error: bool = False
    mime: str | None = None
    size: int | None = None
    data: Any = None


@dataclass(frozen=True, slots=True)
class Message:
    """One message; ``role`` is ``system``, ``user``, ``assistant``, ``tool``, or another one."""

    role: str
    parts: tuple[Part, ...]
    name: str | None = None

    @property
    def text(self) -> str:
        """What it says, without reasoning, tools and files."""
        said = (part.text for part in self.parts if part.kind in {"text", "refusal"})
        return "\n".join(text for text in said if text)

    @property
    def size(self) -> int:
        """The number of characters that it says."""
        return sum(len(part.text or "") for part in self.parts)


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of model calls. ``input_tokens`` include those read from and written to a cache."""

    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0
    cache_read_input_tokens: int = 0
    cache_creation_input_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.total_tokens + other.total_tokens,
            self.cache_read_input_tokens + other.cache_read_input_tokens,
            self.cache_creation_input_tokens + other.cache_creation_input_tokens,
        )

    def to_dict(self) -> dict[str, int]:
        """The counts as MLflow writes them: those of a cache only where there are any."""
        counts = {
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "total_tokens": self.total_tokens,
        }
        cached = {
            "cache_read_input_tokens": self.cache_read_input_tokens,
            "cache_creation_input_tokens": self.cache_creation_input_tokens,
        }
        return counts | {name: count for name, count in cached.items() if count}


@dataclass(frozen=True, slots=True)
class Reading:
    """What one value holds of a conversation: messages, and what a response says about itself.

    ``is_cut`` says that the recorded value ends early.
    """

    messages: tuple[Message, ...] = ()
    model: str | None = None
    finish_reasons: tuple[str, ...] = ()
    usage: Usage | None = None
    is_cut: bool = False


@dataclass(frozen=True, slots=True)
class Conversation:
    """What a model was asked, with all earlier turns, and what it answered.

    ``answers`` has several messages where several were requested. ``is_request_cut`` and ``is_response_cut``
    say that the recorded one ends early.
    """

    asked: tuple[Message, ...]
    answers: tuple[Message, ...]
    model: str | None = None
    finish_reasons: tuple[str, ...] = ()
    usage: Usage | None = None
    is_request_cut: bool = False
    is_response_cut: bool = False

    @property
    def question(self) -> str | None:
        """The text of the last user message; ``None`` also where later messages may have been cut off."""
        messages = self.asked[-1:] if self.is_request_cut else self.asked
        return next((one.text for one in reversed(messages) if one.role == USER and one.text), None)

    @property
    def texts(self) -> tuple[str | None, str | None]:
        """Question and answer."""
        return self.question, self.answer

    @property
    def answer(self) -> str | None:
        """The text of the answer; of one that only calls tools, the calls."""
        texts = [one.text or "\n".join(map(spell_call, calls_of(one))) for one in self.answers]
        return "\n".join(filter(None, texts)) or None


def calls_of(message: Message) -> list[Part]:
    """The tool calls of a message."""
    return [part for part in message.parts if part.kind == "tool_call"]


def spell_call(call: Part) -> str:
    """A tool call as ``name(arguments)``, without the result."""
    return f"{call.name or 'tool'}({spell_arguments(call.arguments)})"


def spell_arguments(arguments: Any) -> str:
    """Arguments on one line: ``city="Rome", days=2`` for an object, else as JSON or text."""
    if arguments is None:
        return ""
    if isinstance(arguments, str):
        return arguments
    if isinstance(arguments, dict):
        return ", ".join(f"{name}={_json(value)}" for name, value in arguments.items())
    return _json(arguments)


def _json(value: Any) -> str:
    try:
        return orjson.dumps(value).decode()
    except TypeError:
        pass
    try:  # it is slower, but takes deeper nesting, larger numbers and lone surrogates
        return json.dumps(value, default=str)[:_MOST_ODD]
    except (TypeError, ValueError, RecursionError):
        return "..."


def last_turn(conversation: Conversation) -> Conversation:
    """The conversation from the last message of the user on; whole if there is none."""
    asked = conversation.asked
    last = next((at for at in reversed(range(len(asked))) if asked[at].role == USER), 0)
    return replace(conversation, asked=asked[last:])


def join_results(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """The messages with each tool result moved into its call: that with its id, else the next of its name.

    A result whose call is not there stays where it is, and a message of which nothing is left goes.
    """
    pending: dict[tuple[str | None, str | None], deque[Part]] = {}
    for message in messages:
        for call in calls_of(message):
            if not call.parts:
                pending.setdefault(_key(call), deque()).append(call)
    results: dict[int, Part] = {}
    kept: list[tuple[Message, list[Part]]] = []
    for message in messages:
        left = []
        for part in message.parts:
            if part.kind == "tool_result" and (calls := pending.get(_key(part))):
                results[id(calls.popleft())] = part
            else:
                left.append(part)
        if left or not message.parts:
            kept.append((message, left))
    return tuple(
        replace(message, parts=tuple(_with_result(part, results) for part in left)) for message, left in kept
    )


def _key(part: Part) -> tuple[str | None, str | None]:
    return (part.id, None) if part.id is not None else (None, part.name)


def _with_result(part: Part, results: dict[int, Part]) -> Part:
    result = results.get(id(part))
    return part if result is None else replace(part, parts=(result,))
