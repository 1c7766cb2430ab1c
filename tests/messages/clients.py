"""Real clients against answers as their services give them: what they send, and what they make of the answer.

``Exchange`` holds both bodies as a middleware captures them, and the values as a decorated function records
them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
import httpx2

from wherefrom._capture.values import snapshot

if TYPE_CHECKING:
    import openai

# The packages take seconds to import: each is, where a test first uses it.

PNG = "iVBORw0KGgo="  # 8 bytes
PNG_URL = f"data:image/png;base64,{PNG}"


@dataclass
class Exchange:
    """One call: ``request`` and ``response`` are bodies, ``arguments`` and ``result`` recorded values."""

    request: str
    response: str
    arguments: Any
    result: Any


class Service:
    """Answers every request with one body."""

    def __init__(self, body: str, kind: str) -> None:
        self.body, self.kind = body, kind
        self.request = ""

    def client(self, library: Any) -> Any:
        def answer(request: Any) -> Any:
            self.request = request.content.decode()
            return library.Response(200, headers={"content-type": self.kind}, content=self.body.encode())

        return library.Client(transport=library.MockTransport(answer))


def exchange(
    call: Callable[[Any], Callable[..., Any]], answer: Any, arguments: Any, library: Any = httpx
) -> Exchange:
    """What a call of a client leaves behind; a list as ``answer`` is a stream of events."""
    is_stream = isinstance(answer, list)
    body = events(answer) if is_stream else json.dumps(answer)
    service = Service(body, "text/event-stream" if is_stream else "application/json")
    with service.client(library) as client:
        result = call(client)(**arguments)
        if is_stream:
            result = list(result)
    return Exchange(service.request, body, snapshot(arguments), snapshot(result))


def events(data: Iterable[Any]) -> str:
    """A body of Server-Sent Events; a type in the data is the event's too."""
    lines = []
    for one in data:
        if isinstance(one, dict) and "type" in one:
            lines.append(f"event: {one['type']}\n")
        lines.append(f"data: {one if isinstance(one, str) else json.dumps(one)}\n\n")
    return "".join(lines)


def openai_chat(answer: Any, **arguments: Any) -> Exchange:
    return exchange(
        lambda http: _openai(http).chat.completions.create, answer, {"model": "gpt-4o", **arguments}
    )


def openai_responses(answer: Any, **arguments: Any) -> Exchange:
    return exchange(lambda http: _openai(http).responses.create, answer, {"model": "gpt-4.1", **arguments})


def _openai(http: Any) -> openai.OpenAI:
    import openai

    return openai.OpenAI(api_key="k", base_url="http://openai.test/v1", http_client=http, max_retries=0)


def anthropic_messages(answer: Any, **arguments: Any) -> Exchange:
    import anthropic

    def call(http: Any) -> Callable[..., Any]:
        client = anthropic.Anthropic(api_key="k", base_url="http://anthropic.test", http_client=http)
        create: Callable[..., Any] = client.messages.create
        return create

    given = {"model": "claude-sonnet-5", "max_tokens": 500, **arguments}
    return exchange(call, answer, given, httpx2)


def gemini(answer: Any, **arguments: Any) -> Exchange:
    from google import genai
    from google.genai import types

    def call(http: Any) -> Callable[..., Any]:
        options = types.HttpOptions(httpx_client=http)
        models = genai.Client(api_key="k", http_options=options).models
        is_stream = isinstance(answer, list)
        found: Callable[..., Any] = models.generate_content_stream if is_stream else models.generate_content
        return found

    return exchange(call, answer, {"model": "gemini-2.5-flash", **arguments})
