"""Recognises conversations in recorded values: requests and responses of the usual clients, and streams.

Any JSON is accepted. What is no conversation gives ``None``, and what is unknown in one stays as data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from .bodies import parse_body
from .content import ASSISTANT, SYSTEM, TOOL, USER, Message, Part, Reading
from .parts import read_block, read_content, read_result, text_in
from .streams import assemble
from .usage import read_usage

ROLES: Final[Mapping[str, str]] = {
    "system": SYSTEM,
    "developer": SYSTEM,
    "SystemMessage": SYSTEM,
    "user": USER,
    "human": USER,
    "HumanMessage": USER,
    "assistant": ASSISTANT,
    "ai": ASSISTANT,
    "model": ASSISTANT,
    "AIMessage": ASSISTANT,
    "AIMessageChunk": ASSISTANT,
    "tool": TOOL,
    "function": TOOL,
    "ToolMessage": TOOL,
    "FunctionMessage": TOOL,
}
_CONTENT: Final = ("content", "parts", "contents")
_BODY: Final = (*_CONTENT, "tool_calls", "function_call", "audio", "refusal", "reasoning_content")
_DEEPEST: Final = 3  # objects around a conversation, such as the arguments of a function
_MOST_KEYS: Final = 50
_ITEMS: Final = frozenset({"reasoning", "function_call_output", "custom_tool_call_output"})
_MAX_ROLE: Final = 40
UNREADABLE: Final = (RecursionError, TypeError, ValueError, AttributeError, LookupError)
"""What reading may raise for values that nobody has thought of."""

Object = Mapping[str, Any]


def read_value(value: Any, depth: int = 0) -> Reading | None:
    """The conversation in a recorded value, which may be the text of a captured body; ``None`` if none is."""
    if isinstance(value, list):
        return _read_list(value, depth)
    if isinstance(value, dict):
        return _read_object(value, depth)
    body = parse_body(value) if isinstance(value, str) and depth == 0 else None
    found = None if body is None else read_value(body.value, 1)
    return found if found is None or body is None else replace(found, is_cut=body.is_cut)


def _read_object(value: Object, depth: int) -> Reading | None:
    for read in _SHAPES:
        if (found := read(value)) is not None:
            return found
    if depth < _DEEPEST:
        for inner in list(value.values())[:_MOST_KEYS]:
            if isinstance(inner, (dict, list)) and (found := read_value(inner, depth + 1)) is not None:
                return found
    return None


def _read_list(value: list[Any], depth: int) -> Reading | None:
    if (whole := assemble(value)) is not None:
        return read_value(whole, depth + 1)
    if (messages := read_messages(value)) is not None:
        return Reading(messages)
    # LangChain's callbacks send batches.
    return _read_list(value[0], depth + 1) if len(value) == 1 and isinstance(value[0], list) else None


def read_messages(value: Any) -> tuple[Message, ...] | None:
    """The messages of a list, of which at least one must be recognised; of a text, one of the user."""
    if isinstance(value, str):
        return (Message(USER, (Part("text", value),)),)
    if isinstance(value, dict):
        return _read_messages([value])
    return _read_messages(value) if isinstance(value, list) else None


def _read_messages(items: Sequence[Any]) -> tuple[Message, ...] | None:
    if len(items) == 1 and isinstance(items[0], list) and not _is_pair(items[0]):
        return _read_messages(items[0])
    found = [read_message(item) for item in items]
    if not any(found):
        return None
    pairs = zip(found, items, strict=True)
    return tuple(message or Message(USER, tuple(read_content(item))) for message, item in pairs)


def read_message(value: Any) -> Message | None:
    """One message, in the shape of any client; ``None`` if it is none."""
    if _is_pair(value):
        return Message(ROLES[value[0]], (Part("text", value[1]),))
    if not isinstance(value, dict):
        return None
    message = _unwrapped(value)
    kind, given = message.get("type"), message.get("role")
    if not isinstance(given, str):
        if isinstance(kind, str) and (kind in _ITEMS or kind.endswith("_call")):
            part = read_block(message)
            return Message(TOOL if part.kind == "tool_result" else ASSISTANT, (part,))
        given = kind if kind != "tool" or "tool_call_id" in message else None
    if not isinstance(given, str) or not any(name in message for name in _BODY):
        return None
    if given not in ROLES and not ("content" in message and "role" in message):
        return None
    role = ROLES.get(given, given[:_MAX_ROLE])
    parts = _parts(message, role)
    if role != ASSISTANT and parts and all(part.kind == "tool_result" for part in parts):
        role = TOOL
    return Message(role, tuple(parts), text_in(message, "name"))


def _is_pair(value: Any) -> bool:
    """Whether it is a role and a text, as LangChain accepts them."""
    return (
        isinstance(value, (list, tuple))
        and len(value) == 2
        and all(isinstance(each, str) for each in value)
        and value[0] in ROLES
    )


def _unwrapped(value: Object) -> Object:
    """A message out of the object in which LangChain or OpenInference put it."""
    if isinstance(value.get("kwargs"), dict) and isinstance(value.get("id"), list) and value["id"]:
        return {**value["kwargs"], "type": value["id"][-1]}
    if isinstance(value.get("data"), dict) and _role(value.get("type")):
        return {**value["data"], "type": value["type"]}
    if isinstance(value.get("message"), dict) and len(value) == 1:
        inner: Object = value["message"]
        return inner
    return value


def _role(name: Any) -> str | None:
    return ROLES.get(name) if isinstance(name, str) else None


def _parts(message: Object, role: str) -> list[Part]:
    content = next((message[name] for name in _CONTENT if message.get(name) is not None), None)
    if role == TOOL and not _has_results(content):
        result = Part(
            "tool_result",
            name=text_in(message, "name"),
            id=text_in(message, "tool_call_id", "id"),
            parts=tuple(read_result(content)),
            is_error=message.get("status") == "error",
        )
        return [result]
    thought = text_in(message, "reasoning_content", "reasoning", "thinking")
    parts = [Part("reasoning", thought)] if thought else []
    parts += read_content(content)
    if refusal := text_in(message, "refusal"):
        parts.append(Part("refusal", refusal))
    if isinstance(audio := message.get("audio"), dict):
        parts.append(read_block({"type": "audio", **audio}))
        if transcript := text_in(audio, "transcript"):
            parts.append(Part("text", transcript))
    known = {part.id for part in parts if part.kind == "tool_call"}
    calls = (_call(call) for call in _calls(message))
    return [*parts, *(call for call in calls if call.id is None or call.id not in known)]


def _has_results(content: Any) -> bool:
    return isinstance(content, list) and any(part.kind == "tool_result" for part in read_content(content))


def _calls(message: Object) -> list[Any]:
    """The tool calls beside the content; LangChain keeps them once more as the provider wrote them."""
    for holder in (message, message.get("additional_kwargs")):
        if isinstance(holder, dict):
            lists = (holder.get(name) for name in ("tool_calls", "invalid_tool_calls"))
            calls = [call for calls in lists if isinstance(calls, list) for call in calls]
            if isinstance(holder.get("function_call"), dict):
                calls.append(holder["function_call"])
            if calls:
                return calls
    return []


def _call(call: Any) -> Part:
    if not isinstance(call, dict):
        return Part("data", data=call)
    if isinstance(call.get("tool_call"), dict):  # OpenInference
        call = call["tool_call"]
    return read_block({**call, "type": "tool_call"})


# Each shape: the reading of an object that has it, else None.


def _completion(value: Object) -> Reading | None:
    """A response of OpenAI's chat completions, or of the older completions."""
    choices = value.get("choices")
    if not isinstance(choices, list) or not choices:
        return None
    found: list[Message] = []
    for choice in choices:
        if not isinstance(choice, dict):
            return None
        if isinstance(message := choice.get("message"), dict):
            found.append(_answer(message))
        elif isinstance(text := choice.get("text"), str):
            found.append(Message(ASSISTANT, (Part("text", text),)))
        else:
            return None
    reasons = (choice.get("finish_reason") for choice in choices)
    return _response(value, found, reasons, value.get("usage"))


def _answer(message: Object) -> Message:
    found = read_message({"role": ASSISTANT, "content": None, **message})
    return found or Message(ASSISTANT, (Part("data", data=message),))


def _response(value: Object, messages: Sequence[Message], reasons: Iterable[Any], usage: Any) -> Reading:
    known = tuple(reason for reason in reasons if isinstance(reason, str) and reason)
    return Reading(tuple(messages), _model(value), known, read_usage(usage))


def _model(value: Object) -> str | None:
    return text_in(value, "model", "modelVersion", "model_version", "model_name")


def _response_api(value: Object) -> Reading | None:
    """A response of OpenAI's Responses API: one answer, of all its items."""
    items = value.get("output")
    if not isinstance(items, list) or (value.get("object") != "response" and _is_no_items(items)):
        return None
    parts: list[Part] = []
    for item in items:
        message = read_message(item)
        parts += message.parts if message is not None else read_content(item)
    details = value.get("incomplete_details")
    reason = details.get("reason") if isinstance(details, dict) else value.get("status")
    if (error := value.get("error")) is not None:
        parts.append(Part("data", data={"error": error}))
    return _response(value, [Message(ASSISTANT, tuple(parts))], [reason], value.get("usage"))


def _is_no_items(items: list[Any]) -> bool:
    return not items or not all(isinstance(item, dict) and read_message(item) for item in items)


def _gemini_response(value: Object) -> Reading | None:
    candidates = value.get("candidates")
    if not isinstance(candidates, list) or not all(isinstance(one, dict) for one in candidates):
        return None
    usage = value.get("usageMetadata", value.get("usage_metadata"))
    feedback = value.get("promptFeedback", value.get("prompt_feedback"))
    if not candidates and usage is None and feedback is None:
        return None
    contents = [one.get("content") for one in candidates]
    found = [
        _answer({"role": "model", **(one if isinstance(one, dict) else {"content": one})}) for one in contents
    ]
    if not candidates and feedback is not None:
        found.append(Message(ASSISTANT, (Part("data", data={"prompt_feedback": feedback}),)))
    reasons = (one.get("finishReason", one.get("finish_reason")) for one in candidates)
    return _response(value, found, reasons, usage)


def _generations(value: Object) -> Reading | None:
    """A result of LangChain's model calls: a list of generations for each prompt."""
    batches = value.get("generations")
    if not isinstance(batches, list):
        return None
    flat = [one for batch in batches for one in (batch if isinstance(batch, list) else [batch])]
    found: list[Message] = []
    told: dict[str, Any] = {}
    for one in flat:
        if not isinstance(one, dict):
            return None
        inner = one.get("message")
        message = read_message(inner) if isinstance(inner, dict) else None
        if message is None and (text := text_in(one, "text")) is not None:
            message = Message(ASSISTANT, (Part("text", text),))
        if message is None:
            return None
        found.append(message)
        told |= _of_langchain(_unwrapped(inner)) if isinstance(inner, dict) else {}
    more = value.get("llm_output")
    if isinstance(more, dict):
        told = {"model": _model(more), "usage": more.get("token_usage", more.get("usage"))} | told
    return _response(told, found, [told.get("reason")], told.get("usage")) if found else None


def _of_langchain(message: Object) -> dict[str, Any]:
    """What a LangChain message says about the response that it came in."""
    about = message.get("response_metadata")
    about = about if isinstance(about, dict) else {}
    told = {
        "model": _model(about),
        "usage": message.get("usage_metadata") or about.get("token_usage") or about.get("usage"),
        "reason": text_in(about, "finish_reason", "stop_reason"),
    }
    return {name: item for name, item in told.items() if item is not None}


def _single(value: Object) -> Reading | None:
    """One message, such as a response of Anthropic's, or a LangChain message."""
    message = read_message(value)
    if message is None:
        return None
    value = _unwrapped(value)
    told = _of_langchain(value)
    reason = text_in(value, "stop_reason", "finish_reason") or told.get("reason")
    about = {"model": _model(value) or told.get("model")}
    return _response(about, [message], [reason], value.get("usage") or told.get("usage"))


def _gemini_request(value: Object) -> Reading | None:
    contents = value.get("contents")
    if isinstance(contents, list):
        items: list[dict[str, Any]] = []
        for item in contents:
            if isinstance(item, dict) and item.get("role"):
                items.append(item)
            elif items and items[-1].get("role") is None:
                items[-1]["parts"] += _as_list(item)
            else:
                items.append({"role": None, "parts": list(_as_list(item))})
        found = _read_messages([{**item, "role": item["role"] or "user"} for item in items])
    else:
        found = read_messages(contents)
        if found is None and isinstance(contents, dict):
            found = _read_messages([{"role": "user", **contents}])
    if found is None:
        return None
    config = value.get("config")
    names = ("systemInstruction", "system_instruction")
    holders = (value, config if isinstance(config, dict) else {})
    system = next((holder[name] for holder in holders for name in names if holder.get(name)), None)
    system = system.get("parts") if isinstance(system, dict) and "parts" in system else system
    return Reading((*_system(system), *found), _model(value))


def _as_list(item: Any) -> list[Any]:
    parts = item.get("parts", item) if isinstance(item, dict) else item
    return parts if isinstance(parts, list) else [parts]


def _system(content: Any) -> tuple[Message, ...]:
    parts = tuple(read_content(content))
    return (Message(SYSTEM, parts),) if parts else ()


def _request(value: Object) -> Reading | None:
    """A request with ``messages``; Anthropic's has the system prompt beside them."""
    messages = value.get("messages")
    found = read_messages(messages) if isinstance(messages, list) else None
    return None if found is None else Reading((*_system(value.get("system")), *found), _model(value))


def _responses_request(value: Object) -> Reading | None:
    """A request of OpenAI's Responses API: ``input`` is a text or a list of items."""
    given = value.get("input")
    is_text = isinstance(given, str) and ("model" in value or "instructions" in value)
    found = read_messages(given) if is_text or isinstance(given, list) else None
    return None if found is None else Reading((*_system(value.get("instructions")), *found), _model(value))


def _prompt(value: Object) -> Reading | None:
    """A request of the older completions."""
    prompt = value.get("prompt")
    if not isinstance(prompt, str) or "model" not in value:
        return None
    return Reading((Message(USER, (Part("text", prompt),)),), _model(value))


def _wrapped(value: Object) -> Reading | None:
    """A message beside other things, such as a response of Ollama's."""
    inner = value.get("message")
    message = read_message(inner) if isinstance(inner, dict) else None
    if message is None:
        return None
    counts = {"input_tokens": value.get("prompt_eval_count"), "output_tokens": value.get("eval_count")}
    usage = counts if any(counts.values()) else value.get("usage")
    return _response(value, [message], [text_in(value, "done_reason", "finish_reason")], usage)


_SHAPES: Final[Sequence[Callable[[Object], Reading | None]]] = (
    _completion,
    _gemini_response,
    _generations,
    _response_api,
    _gemini_request,
    _request,
    _responses_request,
    _single,
    _wrapped,
    _prompt,
)
