"""What becomes of a span of OpenTelemetry's in our trace."""

from __future__ import annotations

import json
from typing import Any

import pytest
from opentelemetry.trace import Link, SpanContext, SpanKind, StatusCode

import wherefrom
from wherefrom import Span

from .telemetry import Telemetry, get, named, ok


async def brought(telemetry: Telemetry, *, kind: SpanKind = SpanKind.INTERNAL, **attributes: Any) -> Span:
    """A span with these attributes (``__`` for a dot), as it is in our trace."""
    return await read(telemetry, {key.replace("__", "."): value for key, value in attributes.items()}, kind)


async def read(telemetry: Telemetry, attributes: dict[str, Any], kind: SpanKind = SpanKind.INTERNAL) -> Span:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        with telemetry.tracer.start_as_current_span("call", attributes=attributes, kind=kind):
            pass
        await ok(scope, receive, send)

    await get(telemetry.traced(app))
    return telemetry.trace.data.spans[1]


async def test_everything_of_a_span(telemetry: Telemetry) -> None:
    """Name, times, attributes, events, links, status, library."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        link = Link(SpanContext(1, 2, is_remote=True), {"why": "retry"})
        span = telemetry.tracer.start_span(
            "first", kind=SpanKind.PRODUCER, links=[link], start_time=1_700_000_000_000_000_000
        )
        span.set_attributes({"text": "a", "count": 2, "share": 0.5, "yes": True, "list": ["a", "b"]})
        span.add_event("retry", {"attempt": 1}, timestamp=1_700_000_000_500_000_000)
        span.update_name("second")
        span.set_status(StatusCode.ERROR, "too slow")
        span.end(1_700_000_001_000_000_000)
        await ok(scope, receive, send)

    await get(telemetry.traced(app))
    span = telemetry.trace.data.spans[1]
    assert (span.name, span.span_type) == ("second", "PRODUCER")
    assert (span.start_time_ns, span.end_time_ns) == (1_700_000_000_000_000_000, 1_700_000_001_000_000_000)
    assert span.attributes == {
        "text": "a",
        "count": 2,
        "share": 0.5,
        "yes": True,
        "list": ["a", "b"],
        "otel.scope.name": "library",
        "otel.scope.version": "1.2",
    }
    assert [event.to_dict() for event in span.events] == [
        {"name": "retry", "time_unix_nano": 1_700_000_000_500_000_000, "attributes": {"attempt": 1}}
    ]
    assert span.links == [
        {"trace_id": f"tr-{1:032x}", "span_id": f"{2:016x}", "attributes": {"why": "retry"}}
    ]
    assert (span.status.code, span.status.description) == ("ERROR", "too slow")
    assert json.loads(telemetry.trace.to_json())


@pytest.mark.parametrize(
    ("kind", "attributes", "span_type"),
    [
        (SpanKind.INTERNAL, {}, "UNKNOWN"),
        (SpanKind.CLIENT, {}, "CLIENT"),
        (SpanKind.CONSUMER, {}, "CONSUMER"),
        (SpanKind.CLIENT, {"gen_ai.operation.name": "chat"}, "CHAT_MODEL"),
        (SpanKind.CLIENT, {"gen_ai.operation.name": "embeddings"}, "EMBEDDING"),
        (SpanKind.INTERNAL, {"gen_ai.operation.name": "execute_tool"}, "TOOL"),
        (SpanKind.INTERNAL, {"gen_ai.operation.name": "invoke_agent"}, "AGENT"),
        (SpanKind.CLIENT, {"gen_ai.operation.name": "something new"}, "CLIENT"),
        (SpanKind.INTERNAL, {"openinference.span.kind": "RETRIEVER"}, "RETRIEVER"),
        (SpanKind.INTERNAL, {"traceloop.span.kind": "workflow"}, "WORKFLOW"),
        (SpanKind.INTERNAL, {"traceloop.span.kind": "odd"}, "UNKNOWN"),
        (SpanKind.INTERNAL, {"mlflow.spanType": '"PARSER"'}, "PARSER"),
    ],
)
async def test_types(
    telemetry: Telemetry, kind: SpanKind, attributes: dict[str, Any], span_type: str
) -> None:
    """By the convention for model calls where there is one, else by the kind."""
    assert (await read(telemetry, attributes, kind)).span_type == span_type


MESSAGES = [{"role": "user", "parts": [{"type": "text", "content": "hello"}]}]


@pytest.mark.parametrize(
    ("attributes", "inputs", "outputs"),
    [
        (
            {
                "gen_ai.input.messages": json.dumps(MESSAGES),
                "gen_ai.output.messages": '[{"role": "assistant"}]',
            },
            MESSAGES,
            [{"role": "assistant"}],
        ),
        ({"input.value": "plain text", "output.value": '{"a": 1}'}, "plain text", {"a": 1}),
        (
            {"gen_ai.tool.call.arguments": '{"x": 1}', "gen_ai.tool.call.result": "[broken"},
            {"x": 1},
            "[broken",
        ),
        ({"traceloop.entity.input": "in", "traceloop.entity.output": "out"}, "in", "out"),
        ({"mlflow.spanInputs": '{"q": 1}', "mlflow.spanOutputs": '"yes"'}, {"q": 1}, "yes"),
        (
            {
                "gen_ai.prompt.1.content": "b",
                "gen_ai.prompt.0.role": "user",
                "gen_ai.prompt.0.content": "a",
                "gen_ai.completion.0.content": "c",
            },
            [{"role": "user", "content": "a"}, {"content": "b"}],
            [{"content": "c"}],
        ),
        ({"gen_ai.request.model": "m"}, None, None),
    ],
)
async def test_inputs_and_outputs(
    telemetry: Telemetry, attributes: dict[str, Any], inputs: Any, outputs: Any
) -> None:
    """Messages, arguments and values, by the conventions of the day and those before; attributes stay."""
    span = await read(telemetry, attributes)
    assert (span.inputs, span.outputs) == (inputs, outputs)
    assert attributes.items() <= span.attributes.items()


async def test_messages_in_events(telemetry: Telemetry) -> None:
    """Where the convention once put them."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        with telemetry.tracer.start_as_current_span("call", attributes={"gen_ai.system": "openai"}) as span:
            span.add_event("gen_ai.content.prompt", {"gen_ai.prompt": '["hello"]'})
            span.add_event("gen_ai.content.completion", {"gen_ai.completion": "hi"})
        await ok(scope, receive, send)

    await get(telemetry.traced(app))
    span = telemetry.trace.data.spans[1]
    assert (span.inputs, span.outputs) == (["hello"], "hi")
    assert span.attributes["mlflow.llm.provider"] == "openai"


async def test_tokens_are_summed_on_the_trace(telemetry: Telemetry) -> None:
    """Over all calls, whatever their convention; the model has MLflow's key."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        calls: list[dict[str, Any]] = [
            {"gen_ai.usage.input_tokens": 1, "gen_ai.usage.output_tokens": 2, "gen_ai.request.model": "m"},
            {"gen_ai.usage.prompt_tokens": 10, "gen_ai.usage.completion_tokens": 20},
            {"llm.token_count.prompt": 100, "llm.token_count.completion": 200},
            {"mlflow.chat.tokenUsage": '{"input_tokens": 1000, "output_tokens": 2000, "total_tokens": 3000}'},
        ]
        for attributes in calls:
            with telemetry.tracer.start_as_current_span("call", attributes=attributes):
                pass
        await ok(scope, receive, send)

    await get(telemetry.traced(app))
    usage = json.loads(telemetry.trace.info.trace_metadata["mlflow.trace.tokenUsage"])
    assert usage == {"input_tokens": 1111, "output_tokens": 2222, "total_tokens": 3333}
    assert telemetry.trace.data.spans[1].attributes["mlflow.llm.model"] == "m"
    assert telemetry.trace.data.spans[1].attributes["gen_ai.request.model"] == "m"


async def test_hostile_values(telemetry: Telemetry) -> None:
    """Lone surrogates and long texts are recorded as far as possible."""
    span = await brought(telemetry, gen_ai__prompt="\ud800", big="x" * 2_000_000)
    assert span.inputs == "?"
    assert 499_900 < len(span.attributes["big"]) <= 500_000  # in all, with the other texts


async def test_our_spans_as_exporters_get_them(telemetry: Telemetry) -> None:
    """JSON values become what attributes may hold; types, inputs and outputs go along."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        with wherefrom.start_span("ours", span_type="TOOL") as span:
            span.set_attributes({"a": {"b": 1}, "c": [1, "x"], "d": ["x"], "e": None, "f": 1.5, "g": []})
            span.set_inputs({"q": 1})
            span.set_outputs(["yes"])
            span.add_event("done", {"n": {"x": 1}})
            span.links += [{"trace_id": "tr-" + "1" * 32, "span_id": "2" * 16}, {"trace_id": "odd"}]
        with pytest.raises(ValueError, match="no"), wherefrom.start_span("client", span_type="CLIENT"):
            raise ValueError("no")
        await ok(scope, receive, send)

    await get(telemetry.traced(app))
    telemetry.check()
    exported = {span.name: span for span in telemetry.exported}
    ours, client = exported["ours"], exported["client"]
    assert dict(ours.attributes or {}) == {
        "a": '{"b":1}',
        "c": '[1,"x"]',
        "d": ["x"],
        "f": 1.5,
        "g": [],
        "mlflow.spanType": "TOOL",
        "mlflow.spanInputs": '{"q":1}',
        "mlflow.spanOutputs": '["yes"]',
    }
    assert dict(ours.events[0].attributes or {}) == {"n": '{"x":1}'}
    assert [link.context.span_id for link in ours.links] == [int("2" * 16, 16)]
    assert ours.instrumentation_scope is not None
    assert ours.instrumentation_scope.name == "wherefrom"
    assert ours.resource is telemetry.provider.resource
    assert client.kind is SpanKind.CLIENT
    assert (client.status.status_code, client.status.description) == (StatusCode.ERROR, "ValueError: no")


async def test_secrets_in_spans_of_others(telemetry: Telemetry) -> None:
    """By the names of attributes, in events, links and the status, as in ours."""
    secret = "hunter2-of-ada"

    async def app(scope: Any, receive: Any, send: Any) -> None:
        link = Link(SpanContext(1, 2, is_remote=True), {"access_token": secret})
        with telemetry.tracer.start_as_current_span("theirs", links=[link]) as span:
            span.set_attribute("http.request.header.authorization", [f"Bearer {secret}"])
            span.set_attribute("db.password", secret)
            span.set_attribute("apiKey", secret)
            span.set_attribute("gen_ai.tool.call.arguments", json.dumps({"password": secret, "q": 1}))
            span.set_attribute("gen_ai.usage.input_tokens", 7)
            span.add_event("login", {"password": secret, "user": "ada"})
            span.set_status(StatusCode.ERROR, f"password={secret}")
        await ok(scope, receive, send)

    await get(telemetry.traced(app))
    span = named(telemetry.trace, "theirs")
    assert secret not in telemetry.trace.to_json()
    assert span.attributes["gen_ai.usage.input_tokens"] == 7
    assert span.inputs == {"password": "[redacted]", "q": 1}
    assert span.events[0].attributes == {"password": "[redacted]", "user": "ada"}
    assert span.status.description == "password=[redacted]"
