"""Traces as records of datasets: for fine-tuning at OpenAI, and for evaluation with MLflow."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Final

import orjson

from .. import keys
from .._records import DatasetFormat
from ..exceptions import WherefromError
from ..messages.content import (
    ASSISTANT,
    MEDIA,
    TOOL,
    USER,
    Conversation,
    Message,
    Part,
    calls_of,
    join_results,
)
from ..messages.conversation import main_span, read_span
from ..messages.parts import MAX_ADDRESS
from ..model import Trace
from ..model.assessment import AssessmentKind
from ..query.order import NEWEST_FIRST
from ..stores import Selection, Snapshot

Object = dict[str, Any]

BATCH: Final = 25
"""Traces that are read at once: one with its spans may take megabytes."""
_ADDRESSES: Final = ("http://", "https://")
_NO_TAGS: Final = frozenset({keys.TRACE_INPUTS, keys.TRACE_OUTPUTS, keys.SCHEMA_VERSION})
_SAID: Final = frozenset({"text", "data"})


class UnsuitableTraceError(WherefromError, ValueError):
    """A trace that makes no record; the message says why, after ``traces``."""


@dataclass(frozen=True, slots=True)
class DatasetBatch:
    """Some records as JSON lines; ``after`` are the sort values of the last trace if there are more."""

    lines: bytes
    after: list[Any] | None


def read_batch(
    snapshot: Snapshot, selection: Selection, form: DatasetFormat, after: Sequence[Any] | None = None
) -> DatasetBatch:
    """The records of the next 25 traces of a selection, the newest first."""
    page = snapshot.search(selection, NEWEST_FIRST, BATCH, after)
    return DatasetBatch(b"".join(make_lines(snapshot.read(page.keys), form)), page.after)


def make_lines(
    traces: Sequence[Trace], form: DatasetFormat, leave_out: Callable[[str], object] = lambda _: None
) -> Iterator[bytes]:
    """The records of traces as JSON lines; ``leave_out`` gets the reason for each one that makes none."""
    for trace in traces:
        try:
            yield orjson.dumps(make_record(trace, form), option=orjson.OPT_APPEND_NEWLINE)
        except UnsuitableTraceError as error:
            leave_out(str(error))
        except TypeError:
            leave_out("with values that are nested too deeply or numbers that are too large")


def make_record(trace: Trace, form: DatasetFormat) -> Object:
    """One trace as a record.

    OpenAI's is ``{"messages": [...]}``, which ends with the answer, and ``tools`` where they were recorded.
    MLflow's has the messages as ``inputs`` and the answer as ``outputs`` (of a trace without a conversation
    those of its root), ``expectations``, ``tags`` of metadata, tags and feedback, and the trace as
    ``source``.

    Raises:
        UnsuitableTraceError: it has no question or answer, or one that the form cannot hold.
    """
    known = {span.span_id: one for span in trace.data.spans if (one := read_span(span)) is not None}
    main = main_span(trace.data.spans, known)
    if form is DatasetFormat.MLFLOW:
        return _evaluation_record(trace, None if main is None else known[main])
    if main is None:
        raise UnsuitableTraceError("without a conversation")
    messages = _chat(known[main])
    inputs = next(span.inputs for span in trace.data.spans if span.span_id == main)
    tools = [one for one in _list(inputs, "tools") if _is_function(one)]
    return {"messages": messages, "tools": tools} if tools else {"messages": messages}


def _list(value: Any, key: str) -> list[Any]:
    found = value.get(key) if isinstance(value, dict) else None
    return found if isinstance(found, list) else []


def _is_function(tool: Any) -> bool:
    function = tool.get("function") if isinstance(tool, dict) and tool.get("type") == "function" else None
    return isinstance(function, dict) and isinstance(function.get("name"), str)


def _evaluation_record(trace: Trace, conversation: Conversation | None) -> Object:
    info, root = trace.info, trace.root
    if conversation is not None:
        *asked, answer = _chat(conversation)
        inputs, outputs = {"messages": asked}, {"messages": [answer]}
    elif root is not None and isinstance(root.inputs, dict) and root.inputs and root.outputs is not None:
        inputs, outputs = root.inputs, root.outputs
    else:
        raise UnsuitableTraceError("without a conversation, and without inputs and outputs")
    valid = [one for one in info.assessments if one.valid and one.error is None]
    kinds = AssessmentKind.EXPECTATION, AssessmentKind.FEEDBACK
    expected, given = ([one for one in valid if one.kind is kind] for kind in kinds)
    source = {"trace_id": info.trace_id, "session_id": info.trace_metadata.get(keys.SESSION)}
    record = {
        "inputs": inputs,
        "outputs": outputs,
        "expectations": {one.name: one.value for one in expected},
        "tags": {key: value for key, value in info.trace_metadata.items() if key not in _NO_TAGS}
        | info.tags
        | {f"feedback.{one.name}": one.text for one in given},
        "source": {
            "source_type": "TRACE",
            "source_data": {key: value for key, value in source.items() if value is not None},
        },
    }
    return {key: value for key, value in record.items() if value or key != "expectations"}


def _chat(conversation: Conversation) -> list[Object]:
    """The conversation in OpenAI's shape; it ends with the answer."""
    if conversation.is_request_cut or conversation.is_response_cut:
        raise UnsuitableTraceError("of which only a part was recorded")
    if not conversation.asked or not conversation.answers:
        raise UnsuitableTraceError("without a question or without an answer")
    # Several answers are alternatives, as requested by ``n``.
    messages = join_results((*conversation.asked, conversation.answers[0]))
    found: list[Object] = []
    for message in _merged(messages):
        found += _convert(message, len(found))
    if any(len(one.get("tool_calls", ())) != _results_after(found, at) for at, one in enumerate(found[:-1])):
        raise UnsuitableTraceError("with a tool call whose result was not recorded")
    if found[-1]["role"] != ASSISTANT:
        raise UnsuitableTraceError("without an answer at the end")
    if not any(one["role"] == USER for one in found):
        raise UnsuitableTraceError("without a question or without an answer")
    return found


def _results_after(messages: Sequence[Object], at: int) -> int:
    """The number of tool results that follow a message of the assistant."""
    if messages[at]["role"] != ASSISTANT:
        return 0
    return len(list(takewhile(lambda one: one["role"] == TOOL, messages[at + 1 :])))


def _merged(messages: Sequence[Message]) -> Iterator[Message]:
    """Messages of the assistant that follow one another are one: text and calls come as several items."""
    last: Message | None = None
    for message in messages:
        if last is not None and _continues(last, message):
            last = Message(ASSISTANT, (*last.parts, *message.parts), last.name)
            continue
        if last is not None:
            yield last
        last = message
    if last is not None:
        yield last


def _continues(last: Message, message: Message) -> bool:
    """Whether a message is of the same turn of the assistant: after calls without results only calls are."""
    calls = calls_of(last)
    is_more = not calls or len(calls_of(message)) == len(message.parts)
    return last.role == message.role == ASSISTANT and is_more and not any(call.parts for call in calls)


def _convert(message: Message, at: int) -> Iterator[Object]:
    """One message, and the results of the tools that it calls."""
    parts = [part for part in message.parts if part.kind != "reasoning"]
    match message.role:
        case "system" | "user":
            yield {"role": message.role, "content": _content(parts, with_images=message.role == USER)}
        case "assistant":
            yield from _convert_answer(parts, at)
        case "tool":
            raise UnsuitableTraceError("with a tool result whose call was not recorded")
        case _:
            raise UnsuitableTraceError("with messages of other roles than system, user, assistant and tool")


def _convert_answer(parts: Sequence[Part], at: int) -> Iterator[Object]:
    calls = [part for part in parts if part.kind == "tool_call"]
    refusals = [part.text or "" for part in parts if part.kind == "refusal"]
    said = _content([part for part in parts if part.kind not in {"tool_call", "refusal"}])
    if not (said or calls or refusals):
        raise UnsuitableTraceError("with an empty message of the assistant")
    ids = [call.id or f"call_{at}_{number}" for number, call in enumerate(calls)]
    message: Object = {"role": ASSISTANT, "content": said or None}
    if refusals:
        message["refusal"] = "\n".join(refusals)
    if calls:
        message["tool_calls"] = [
            {
                "id": id_,
                "type": "function",
                "function": {"name": call.name or "tool", "arguments": _arguments(call.arguments)},
            }
            for id_, call in zip(ids, calls, strict=True)
        ]
    yield message
    for id_, call in zip(ids, calls, strict=True):
        for result in call.parts:
            yield {"role": TOOL, "tool_call_id": id_, "content": _content(result.parts) or ""}


def _arguments(arguments: Any) -> str:
    return arguments if isinstance(arguments, str) else orjson.dumps(arguments or {}).decode()


def _content(parts: Sequence[Part], *, with_images: bool = False) -> str | list[Object]:
    """The text of the parts; with images, a list of texts and addresses."""
    if any(part.kind not in _SAID | MEDIA for part in parts):
        raise UnsuitableTraceError("with parts of messages that are neither text nor image nor call")
    if any(part.kind in MEDIA for part in parts):
        if not with_images:
            raise UnsuitableTraceError("with files in messages that cannot hold them")
        return [_block(part) for part in parts]
    return "\n".join(_text(part) for part in parts)


def _block(part: Part) -> Object:
    address = part.name or ""
    if part.kind == "image" and address.startswith(_ADDRESSES) and len(address) < MAX_ADDRESS:
        return {"type": "image_url", "image_url": {"url": address}}
    if part.kind in MEDIA:
        raise UnsuitableTraceError("with files that were recorded without their address")
    return {"type": "text", "text": _text(part)}


def _text(part: Part) -> str:
    return part.text or "" if part.kind == "text" else orjson.dumps(part.data).decode()
