"""Instrumentors of other packages, switched on by the setting: real clients against a local server."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import starlette
from anyio import create_task_group
from opentelemetry import context as otel_context
from opentelemetry.util._once import Once
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

import wherefrom
from wherefrom import MemorySink, Settings, Trace, TraceMiddleware
from wherefrom.exceptions import SettingsError
from wherefrom.messages.conversation import read_span
from wherefrom.otel import OpenTelemetryBridge
from wherefrom.otel.instrumentors import Instrumentor, switch_on
from wherefrom.process import process
from wherefrom.web.queries import QueryPool

from .services import ANSWER, model_service
from .telemetry import get

if TYPE_CHECKING:
    import anthropic
    import openai

SYSTEM, QUESTION = "You are brief.", "What is the capital of Portugal?"
ASKED: list[Any] = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": QUESTION}]
CALLED = 'lookup(city="Lisbon", password="[redacted]")'


@pytest.fixture(autouse=True)
def _switched_off(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No instrumentor is on before a test and after it, and the process has no provider."""
    monkeypatch.setattr("opentelemetry.trace._TRACER_PROVIDER", None)
    monkeypatch.setattr("opentelemetry.trace._TRACER_PROVIDER_SET_ONCE", Once())
    monkeypatch.setattr("opentelemetry._logs._internal._LOGGER_PROVIDER", None)
    monkeypatch.setattr("opentelemetry._logs._internal._LOGGER_PROVIDER_SET_ONCE", Once())
    monkeypatch.setattr(process, "_said", set())
    monkeypatch.setattr(process, "thread_hooks", ())
    yield
    for entry in entry_points(group="opentelemetry_instrumentor"):
        instance = getattr(getattr(sys.modules.get(entry.module), entry.attr, None), "_instance", None)
        if instance is not None and instance.is_instrumented_by_opentelemetry:
            instance.uninstrument()


@pytest.fixture(scope="module")
def service() -> Iterator[str]:
    with model_service() as url:
        yield url


def calls(ai: openai.OpenAI, claude: anthropic.Anthropic) -> dict[str, Callable[[], Any]]:
    """One call of each kind, by the clients as they are."""
    chat: Any = {"model": "gpt-4o", "messages": ASKED}
    respond: Any = {"model": "gpt-4o", "instructions": SYSTEM, "input": ASKED[1:]}
    message: Any = {
        "model": "claude-sonnet-5", "max_tokens": 100, "system": SYSTEM, "messages": ASKED[1:],
    }  # fmt: skip

    def read_stream() -> None:
        with claude.messages.stream(**message) as stream:
            assert "".join(stream.text_stream) == ANSWER

    def create(**more: Any) -> Any:
        return ai.chat.completions.create(**chat, **more)

    return {
        "chat": create,
        "chat-stream": lambda: list(create(stream=True, stream_options={"include_usage": True})),
        "responses": lambda: ai.responses.create(**respond),
        "responses-stream": lambda: list(ai.responses.create(**respond, stream=True)),
        "messages": lambda: claude.messages.create(**message),
        "messages-events": lambda: list(claude.messages.create(**message, stream=True)),
        "messages-stream": read_stream,
    }


async def traces(url: str, instrument: str, *only: str) -> dict[str, Trace]:
    """The trace of a request to an app that makes one call, for each call, or for some."""
    import anthropic
    import openai

    async def ask(request: Request) -> Response:
        await run_in_threadpool(made[request.path_params["call"]])
        return JSONResponse({})

    sink, settings = MemorySink(), Settings(store="none", instrument=instrument)
    app = TraceMiddleware(Starlette(routes=[Route("/{call}", ask)]), sink=sink, settings=settings)
    with (
        openai.OpenAI(api_key="k", base_url=f"{url}/v1", max_retries=0) as ai,
        anthropic.Anthropic(api_key="k", base_url=url, max_retries=0) as claude,
    ):
        made = {name: call for name, call in calls(ai, claude).items() if not only or name in only}
        for call in made:
            assert (await get(app, f"/{call}")).status_code == 200
    assert wherefrom.stats().errors == {}
    return dict(zip(made, sink.traces, strict=True))


@pytest.mark.parametrize(
    ("instrument", "contents"),
    [
        ("openai,anthropic", "span_only"),
        ("genai-openai,genai-anthropic", "event_only"),
        ("openinference-instrumentation-openai,openinference-instrumentation-anthropic", None),
    ],
    ids=["span", "event", "openinference"],
)
async def test_model_calls_are_conversations(
    service: str, monkeypatch: pytest.MonkeyPatch, instrument: str, contents: str | None
) -> None:
    """Each call is a span of its request's trace, with messages, model, tokens and cost; secrets are not."""
    if contents is not None:
        monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", contents)
    for call, trace in (await traces(service, instrument)).items():
        root, span, *inner = trace.data.spans
        assert span.parent_id == root.span_id, call
        assert "hunter2" not in json.dumps(trace.to_dict())
        found = read_span(span)
        assert found is not None, call
        assert [message.role for message in found.asked] == ["system", "user"], call
        assert found.question == QUESTION
        assert found.answer == (CALLED if call == "chat" else ANSWER), call
        info = trace.info
        assert (info.request_preview, info.response_preview) == (found.question, found.answer), call
        # The client of Anthropic has a span of its own for each call.
        assert len(inner) == ("messages" in call), call
        assert json.loads(info.trace_metadata["mlflow.trace.tokenUsage"]) == {
            "input_tokens": 20, "output_tokens": 10, "total_tokens": 30, "cache_read_input_tokens": 4,
        }, call  # fmt: skip
        model = "claude-sonnet-5" if "messages" in call else "gpt-4o-2024-08-06"
        assert info.trace_metadata["wherefrom.models"] == model
        cost = json.loads(info.trace_metadata["mlflow.trace.cost"])["total_cost"]
        streams = call.endswith(("stream", "events"))
        assert ("wherefrom.time_to_first_token_ms" in info.trace_metadata) == streams, call
        assert cost == pytest.approx(0.0001328 if "messages" in call else 0.000145), call


async def test_contents_stay_out_as_the_instrumentor_says(service: str) -> None:
    """OpenTelemetry's record no messages unless their variable asks for them."""
    for trace in (await traces(service, "openai,anthropic", "chat", "messages-stream")).values():
        assert "Portugal" not in json.dumps(trace.to_dict())
        assert json.loads(trace.info.trace_metadata["mlflow.trace.tokenUsage"])["total_tokens"] == 30


SOURCE = """
{top}
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor

class Instrumentor(BaseInstrumentor):
    def instrumentation_dependencies(self):
        return [{needs!r}]

    def _instrument(self, **kwargs):
        {does}

    def _uninstrument(self, **kwargs):
        pass
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Installs a package with an instrumentor."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(name: str, package: str, needs: str = "starlette", *lines: str, **source: str) -> None:
        place = package.replace("-", "_")
        module = f"{place}_{tmp_path.name}"
        text = SOURCE.format(**{"needs": needs, "does": "pass", "top": "", **source})
        (tmp_path / f"{module}.py").write_text(text)
        about = tmp_path / f"{place}-1.0.dist-info"
        about.mkdir()
        metadata = ["Metadata-Version: 2.1", f"Name: {package}", "Version: 1.0", *lines, ""]
        (about / "METADATA").write_text("\n".join(metadata))
        (about / "entry_points.txt").write_text(
            f"[opentelemetry_instrumentor]\n{name} = {module}:Instrumentor\n"
        )

    return write


SERVER = "Requires-Dist: opentelemetry-instrumentation-asgi==0.60b0"


def found(*names: str) -> dict[str, Instrumentor]:
    """The instrumentors that a test has installed, by package."""
    return {one.package: one for one in switch_on(names) if one.package.startswith("test-")}


def test_what_auto_leaves_off(
    install: Callable[..., None], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What fails, what does not suit its library, a second one for a library: a sentence each, no more."""
    install("good", "test-good")
    install("good", "test-official", "starlette", "Project-URL: Home, https://github.com/open-telemetry/x")
    install("gone", "test-gone", "no-such-library>=2")
    install("old", "test-old", "starlette<0.1")
    install("fails", "test-fails", does="raise KeyError('streamable')")
    install("broken", "test-broken", top="import no_such_module")
    install("web", "test-web", "starlette", SERVER)
    install("not_wanted", "test-not-wanted")
    # Those that happen to be installed besides stay off.
    points = entry_points(group="opentelemetry_instrumentor")
    others = [point.name for point in points if not point.module.startswith("test_")]
    monkeypatch.setenv("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", ", ".join(["not_wanted", *others]))
    with caplog.at_level(logging.WARNING, "wherefrom"):
        OpenTelemetryBridge().instrument("auto")
        OpenTelemetryBridge().instrument()
    sentence = "the instrumentor {0} of test-{0} 1.0 is off: {1}"
    assert sorted(caplog.messages) == [
        sentence.format("broken", "ModuleNotFoundError: No module named 'no_such_module'"),
        sentence.format("fails", "KeyError: 'streamable'"),
        sentence.format("old", f"it takes starlette<0.1, and starlette {starlette.__version__} is installed"),
    ]
    off = {package: one.why_off for package, one in found("auto").items()}
    assert off["test-official"] == ""
    assert off["test-good"] == "test-official is on, for the same library"
    assert off["test-gone"] == "it takes no-such-library>=2, and none is installed"
    assert off["test-not-wanted"] == "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS names it"
    assert "server span already" in off["test-web"]


def test_names(install: Callable[..., None]) -> None:
    """Those of entry points, packages, or the end of a package's; one that is named and off is a problem."""
    install("good", "test-instrumentation-good-v2")
    install("good", "test-instrumentation-other")
    install("web", "test-web", "starlette", SERVER)
    install("gone", "test-gone", "no-such-library>=2")
    one = {package: each.why_off for package, each in found("good", "web").items()}
    assert one["test-instrumentation-good-v2"] == one["test-web"] == ""
    assert "for the same library" in one["test-instrumentation-other"]
    assert one["test-gone"] == "WHEREFROM_INSTRUMENT does not name it"
    assert found("Good_V2")["test-instrumentation-good-v2"].why_off == ""
    assert found("good", "test-instrumentation-other")["test-instrumentation-other"].why_off == ""
    assert found("gone")["test-gone"].is_problem
    known = r"^WHEREFROM_INSTRUMENT='opnai' cannot be used: .* installed are: .*\bgood\b"
    with pytest.raises(SettingsError, match=known):
        switch_on(["good", "opnai"])


def test_our_own_threads_are_left_out() -> None:
    """A store's queries are not recorded, each in a trace of its own, by an instrumentor of its driver."""
    seen: list[Any] = []
    OpenTelemetryBridge().instrument("openai")
    thread = process.thread(lambda: seen.append(otel_context.get_value("suppress_instrumentation")), name="t")
    thread.start()
    thread.join()
    assert seen == [True]
    assert otel_context.get_value("suppress_instrumentation") is None


async def test_queries_of_the_web_ui_are_left_out() -> None:
    """They run in threads that have the context of their request, whose trace would get them."""
    OpenTelemetryBridge().instrument("openai")

    def read() -> Iterator[object]:
        yield otel_context.get_value("suppress_instrumentation")

    with QueryPool(seconds=10).admit() as make_queries:
        async with create_task_group() as tasks:
            queries = make_queries(tasks)
            assert await queries.query(lambda: list(read())) == [True]
            assert [one async for one in queries.stream(read)] == [True]
    assert otel_context.get_value("suppress_instrumentation") is None
