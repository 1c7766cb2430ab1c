"""Requests in protobuf, decoded by OpenTelemetry's own classes."""

from __future__ import annotations

import math
from enum import Enum, IntEnum
from http import HTTPStatus
from typing import Any

import orjson
import pytest
from google.protobuf.json_format import Parse  # type: ignore[import-untyped]
from hypothesis import example, given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as WireSpan

from wherefrom import Span, SpanEvent, SpanStatus, SpanType, Trace, TraceInfo
from wherefrom.exceptions import InvalidTraceError
from wherefrom.model import OK, SpanStatusCode, TraceData
from wherefrom.otel.otlp import LOCAL_PARENT, SpanEncoder, resource_attributes, root_of, source_of
from wherefrom.otel.protobuf import Table, attributes_from_json, attributes_to_json, read_fields

from ..exporters.receiver import attributes_of, decode

TRACE_ID, SPAN_ID, PARENT_ID = "0af7651916cd43dd8448eb211c80319c", "00f067aa0ba902b7", "b9c7c989f97918e1"
MAX_INT64 = 2**63 - 1

_text = st.text(max_size=30) | st.text(alphabet=st.characters(codec="utf-8"), min_size=1)
_scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), MAX_INT64)
    | st.floats(allow_nan=False)
    | st.text(alphabet=st.characters(codec="utf-8"))
)
_values = st.recursive(
    _scalars,
    lambda inner: st.lists(inner) | st.dictionaries(st.text(alphabet='abcé"\\\n'), inner),
    max_leaves=8,
)
_attributes = st.dictionaries(st.text(alphabet=st.characters(codec="utf-8"), min_size=1), _values, max_size=6)


def make_span(**changes: Any) -> Span:
    known = {"trace_id": f"tr-{TRACE_ID}", "span_id": SPAN_ID, "parent_id": None, "name": "GET /"}
    return Span(**{**known, "start_time_ns": 1_700_000_000_000_000_000, **changes})


def request_of(
    encoder: SpanEncoder, span: Span, end: int = 1_700_000_000_005_000_001
) -> ExportTraceServiceRequest:
    resource = encoder.resource({"service.name": "chat"})
    encoded = encoder.span(span, end, LOCAL_PARENT, [])
    return decode(b"".join(encoder.request([(resource, [encoded])])))


def sent(encoder: SpanEncoder, span: Span) -> WireSpan:
    found: WireSpan = request_of(encoder, span).resource_spans[0].scope_spans[0].spans[0]
    return found


@pytest.fixture
def encoder() -> SpanEncoder:
    return SpanEncoder("1.2.3")


def _as_text(value: Any) -> Any:
    """A JSON value with numbers that are not finite as text."""
    if isinstance(value, dict):
        return {key: _as_text(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_as_text(item) for item in value]
    infinities = {math.inf: "Infinity", -math.inf: "-Infinity"}
    return infinities.get(value, value) if isinstance(value, float) else value


class TestSpans:
    def test_ids_name_times_kind_and_flags(self, encoder: SpanEncoder) -> None:
        span = sent(encoder, make_span(parent_id=PARENT_ID, span_type=SpanType.CLIENT))
        assert span.trace_id.hex() == TRACE_ID
        assert span.span_id.hex() == SPAN_ID
        assert span.parent_span_id.hex() == PARENT_ID
        assert span.name == "GET /"
        assert span.start_time_unix_nano == 1_700_000_000_000_000_000
        assert span.end_time_unix_nano == 1_700_000_000_005_000_001
        assert span.kind == WireSpan.SPAN_KIND_CLIENT
        assert span.flags == 0x101

    def test_a_root_has_no_parent(self, encoder: SpanEncoder) -> None:
        assert sent(encoder, make_span()).parent_span_id == b""

    @pytest.mark.parametrize(
        ("span_type", "kind"),
        [
            (SpanType.SERVER, WireSpan.SPAN_KIND_SERVER),
            ("SERVER", WireSpan.SPAN_KIND_SERVER),
            (SpanType.LLM, WireSpan.SPAN_KIND_INTERNAL),
            ("PRODUCER", WireSpan.SPAN_KIND_PRODUCER),
            ("CONSUMER", WireSpan.SPAN_KIND_CONSUMER),
            ("my own", WireSpan.SPAN_KIND_INTERNAL),
        ],
    )
    def test_kinds(self, encoder: SpanEncoder, span_type: str, kind: int) -> None:
        assert sent(encoder, make_span(span_type=span_type)).kind == kind

    def test_status(self, encoder: SpanEncoder) -> None:
        """OTLP: UNSET is 0, OK 1, ERROR 2; only an error has a message."""
        error = SpanStatus(SpanStatusCode.ERROR, 'ValueError: "no"\n')
        for status, code in ((SpanStatus(), 0), (OK, 1), (SpanStatus(SpanStatusCode.OK), 1), (error, 2)):
            found = sent(encoder, make_span(status=status)).status
            assert (found.code, found.message) == (code, status.description)

    def test_events(self, encoder: SpanEncoder) -> None:
        event = SpanEvent("exception", 1_700_000_000_000_000_007, {"exception.type": "ValueError", "n": 2})
        (found,) = sent(encoder, make_span(events=[event])).events
        assert found.name == "exception"
        assert found.time_unix_nano == 1_700_000_000_000_000_007
        assert attributes_of(found.attributes) == {"exception.type": "ValueError", "n": 2}

    def test_links_and_those_that_cannot_be_sent(self, encoder: SpanEncoder) -> None:
        links = [
            {"trace_id": f"tr-{TRACE_ID}", "span_id": PARENT_ID, "attributes": {"why": "retry"}},
            {"trace_id": TRACE_ID, "span_id": SPAN_ID},
            {"trace_id": "tr-1", "span_id": SPAN_ID},
        ]
        span = sent(encoder, make_span(links=links))
        assert [(link.trace_id.hex(), link.span_id.hex()) for link in span.links] == [
            (TRACE_ID, PARENT_ID),
            (TRACE_ID, SPAN_ID),
        ]
        assert attributes_of(span.links[0].attributes) == {"why": "retry"}
        assert span.links[0].flags == 0x301
        assert span.dropped_links_count == 1

    def test_events_and_links_alone(self, encoder: SpanEncoder) -> None:
        span = sent(encoder, make_span(links=[{"trace_id": TRACE_ID, "span_id": SPAN_ID}]))
        assert (len(span.events), len(span.links), span.dropped_links_count) == (0, 1, 0)

    @pytest.mark.parametrize(
        "ids",
        [
            {"trace_id": "tr-1"},
            {"trace_id": f"tr-{TRACE_ID}0"},
            {"span_id": "x" * 16},
            {"span_id": ""},
            {"parent_id": '","name":"x'},
        ],
    )
    def test_other_ids_are_refused(self, encoder: SpanEncoder, ids: dict[str, str]) -> None:
        with pytest.raises(InvalidTraceError, match="W3C Trace Context"):
            sent(encoder, make_span(**ids))

    def test_what_a_span_took_and_gave_are_native_values(self, encoder: SpanEncoder) -> None:
        """MLflow reads ``mlflow.spanInputs`` as a value; text would show as text."""
        inputs = {"messages": [{"role": "user", "content": "é"}], "n": 1}
        span = make_span(span_type=SpanType.CHAT_MODEL, inputs=inputs, outputs=["a", 1.5, None, False])
        assert attributes_of(sent(encoder, span).attributes) == {
            "mlflow.spanType": "CHAT_MODEL",
            "mlflow.spanInputs": inputs,
            "mlflow.spanOutputs": ["a", 1.5, None, False],
        }

    def test_no_key_comes_twice(self, encoder: SpanEncoder) -> None:
        """The app's own attribute wins; ``attributes_of`` fails on a second one."""
        own = {"mlflow.spanType": "mine", "mlflow.spanInputs": 1, "mlflow.spanOutputs": 2}
        span = make_span(span_type="LLM", inputs="x", outputs="y", attributes=own)
        assert attributes_of(sent(encoder, span).attributes) == own

    def test_only_mlflow_gets_a_type_that_the_kind_implies(self, encoder: SpanEncoder) -> None:
        assert not sent(encoder, make_span(span_type=SpanType.SERVER)).attributes
        for_mlflow = SpanEncoder("1.2.3", for_mlflow=True)
        found = sent(for_mlflow, make_span(span_type=SpanType.SERVER)).attributes
        assert attributes_of(found) == {"mlflow.spanType": "SERVER"}


class TestValues:
    @given(_attributes)
    def test_any_json_value_arrives_as_it_was(self, attributes: dict[str, Any]) -> None:
        found = sent(SpanEncoder("1.2.3"), make_span(attributes=attributes))
        assert attributes_of(found.attributes) == attributes

    @given(_attributes, st.lists(st.tuples(st.text(max_size=5), _attributes), max_size=2))
    def test_events_and_links_have_the_same_values(self, attributes: dict[str, Any], events: Any) -> None:
        span = make_span(
            span_type="TOOL",
            inputs=attributes,
            events=[SpanEvent(name, 1, pairs) for name, pairs in events],
            links=[{"trace_id": TRACE_ID, "span_id": SPAN_ID, "attributes": attributes}],
            status=SpanStatus(SpanStatusCode.ERROR, "no"),
        )
        found = sent(SpanEncoder("1.2.3"), span)
        assert attributes_of(found.attributes)["mlflow.spanInputs"] == attributes
        assert [(event.name, attributes_of(event.attributes)) for event in found.events] == events
        assert attributes_of(found.links[0].attributes) == attributes

    @given(_attributes)
    @example({"a": [math.inf, {"b": -math.inf}]})
    def test_the_json_mapping_is_read_as_it_was_written(self, attributes: dict[str, Any]) -> None:
        """MLflow's REST API has attributes in it, and protobuf's own parser accepts the output."""
        mapped = orjson.loads(orjson.dumps(attributes_to_json(attributes)))
        message = Parse(orjson.dumps({"attributes": mapped}), WireSpan())
        assert attributes_of(message.attributes) == attributes
        assert attributes_from_json(mapped) == _as_text(attributes)

    def test_types_are_kept_though_values_are_equal(self, encoder: SpanEncoder) -> None:
        """1, 1.0 and True are the same key of a dict, so encoded values are cached by type."""
        for value in (1, True, 1.0, "1", 0, False, 0.0):
            found = attributes_of(sent(encoder, make_span(attributes={"x": value, "y": [value]})).attributes)
            assert (type(found["x"]), found["x"]) == (type(value), value)
            assert type(found["y"][0]) is type(value)

    def test_integers_beyond_64_bits_are_text(self, encoder: SpanEncoder) -> None:
        values = {"most": MAX_INT64, "least": -MAX_INT64 - 1, "more": MAX_INT64 + 1, "in": [-(2**70)]}
        assert attributes_of(sent(encoder, make_span(attributes=values)).attributes) == {
            "most": MAX_INT64,
            "least": -MAX_INT64 - 1,
            "more": str(MAX_INT64 + 1),
            "in": [str(-(2**70))],
        }

    def test_numbers_that_json_has_no_form_for(self, encoder: SpanEncoder) -> None:
        values = {"a": math.inf, "b": -math.inf, "c": math.nan, "d": -0.0, "e": 1e300}
        found = attributes_of(sent(encoder, make_span(attributes=values)).attributes)
        assert math.isnan(found.pop("c"))
        assert found == {"a": math.inf, "b": -math.inf, "d": -0.0, "e": 1e300}

    def test_what_is_no_json_value_is_sent_as_json_has_it(self, encoder: SpanEncoder) -> None:
        class Number(IntEnum):
            ONE = 1

        class Thing(Enum):
            A = "a"

        values = {
            "bytes": b"\x00\xff",
            "tuple": (1, 2),
            "set": {3},
            "enum": [Number.ONE, Thing.A, HTTPStatus.OK, SpanType.LLM],
            "object": object,
            "surrogate": "a\udc80",
            "in a list": ["a\udc80", {"k\udc80": 1}],
        }
        found = attributes_of(sent(encoder, make_span(attributes=values)).attributes)
        assert found["bytes"] == b"\x00\xff"
        assert found["tuple"] == [1, 2]
        assert found["set"] == [3]
        assert found["enum"] == [1, "a", 200, "LLM"]
        assert "object" in found["object"]
        assert found["surrogate"] == "a?"
        assert found["in a list"] == ["a?", {"k?": 1}]

    def test_texts_that_cannot_be_encoded(self, encoder: SpanEncoder) -> None:
        span = make_span(name="a\udc80", attributes={"\udc80": 1, "x": "y"})
        span.status = SpanStatus(SpanStatusCode.ERROR, "\udc80")
        span.events = [SpanEvent("\udc80", 1)]
        found = sent(encoder, span)
        assert (found.name, found.status.message, found.events[0].name) == ("a?", "?", "?")
        assert attributes_of(found.attributes) == {"?": 1, "x": "y"}

    def test_nesting_without_end_becomes_text(self, encoder: SpanEncoder) -> None:
        deep: Any = []
        for _ in range(5000):
            deep = [deep]
        loop: dict[str, Any] = {}
        loop["loop"] = loop
        encoded = encoder.attributes({"deep": deep, "loop": loop})
        assert len(encoded) == 2

    def test_attributes_that_change_meanwhile(self, encoder: SpanEncoder) -> None:
        """An app may still set attributes of a span that has ended, in another thread."""

        class Restless(dict[str, Any]):
            changed = False

            def items(self) -> Any:
                for pair in list(super().items()):
                    yield pair
                    if not self.changed:
                        self.changed = True
                        raise RuntimeError("dictionary changed size during iteration")

        assert attributes_of(sent(encoder, make_span(attributes=Restless(a="1", b="2"))).attributes) == {
            "a": "1",
            "b": "2",
        }


class TestRequests:
    def test_resource_and_scope(self, encoder: SpanEncoder) -> None:
        (resource_spans,) = request_of(encoder, make_span()).resource_spans
        assert attributes_of(resource_spans.resource.attributes) == {"service.name": "chat"}
        (scope_spans,) = resource_spans.scope_spans
        assert (scope_spans.scope.name, scope_spans.scope.version) == ("wherefrom", "1.2.3")

    def test_several_resources(self, encoder: SpanEncoder) -> None:
        span = encoder.span(make_span(), 1, LOCAL_PARENT, [])
        groups = [
            (encoder.resource({"service.name": name}), [span] * count)
            for name, count in (("a", 1), ("b", 200), ("c", 64))
        ]
        message = decode(b"".join(encoder.request(groups)))
        assert [
            (attributes_of(found.resource.attributes)["service.name"], len(found.scope_spans[0].spans))
            for found in message.resource_spans
        ] == [("a", 1), ("b", 200), ("c", 64)]


class TestTraces:
    def attributes(
        self, info: TraceInfo, own: dict[str, Any] | None = None, **options: Any
    ) -> dict[str, Any]:
        encoder = SpanEncoder("1.2.3", **options)
        attributes = encoder.trace_attributes(info, source_of(info).pairs, own or {})
        span = encoder.span(make_span(), 1, LOCAL_PARENT, attributes)
        message = decode(b"".join(encoder.request([(encoder.resource({}), [span])])))
        return attributes_of(message.resource_spans[0].scope_spans[0].spans[0].attributes)

    def test_a_trace_says_on_its_root_what_is_not_of_its_process(self) -> None:
        metadata = {
            "app_version": "2",
            "mlflow.trace.session": "s-1",
            "mlflow.trace.user": "u-1",
            "mlflow.trace.tokenUsage": '{"input_tokens": 3}',
            "mlflow.traceInputs": "left out: the root has them",
            "tenant_id": "acme",
            "feature_flag_new": "true",
        }
        info = TraceInfo("tr-1", client_request_id="r-1", trace_metadata=metadata)
        info.source = source_of(TraceInfo("", trace_metadata={"app_version": "1", "region": "eu"}))
        info.tags = {"mlflow.traceName": "GET /", "team": "search"}
        assert self.attributes(info) == {
            "wherefrom.request_id": "r-1",
            "session.id": "s-1",
            "user.id": "u-1",
            "mlflow.trace.tokenUsage": '{"input_tokens": 3}',
            "service.version": "2",
            "wherefrom.metadata.tenant_id": "acme",
            "wherefrom.metadata.feature_flag_new": "true",
            "mlflow.traceTag.team": "search",
        }

    def test_a_trace_like_its_process_says_nothing(self) -> None:
        info = TraceInfo("tr-1", trace_metadata={"app_version": "1", "mlflow.modelId": "m"})
        assert self.attributes(info) == {}

    def test_the_apps_own_attributes_win(self) -> None:
        metadata = {"mlflow.trace.session": "s", "mlflow.trace.user": "u", "tenant": "t"}
        info = TraceInfo("tr-1", client_request_id="r", trace_metadata=metadata)
        own = {"session.id": 1, "user.id": 2, "wherefrom.request_id": 3, "wherefrom.metadata.tenant": 4}
        assert self.attributes(info, own) == {}

    def test_mlflow_reads_the_name_from_a_tag(self) -> None:
        info = TraceInfo("tr-1", tags={"mlflow.traceName": "GET /"})
        assert self.attributes(info) == {}
        assert self.attributes(info, for_mlflow=True) == {"mlflow.traceTag.mlflow.traceName": "GET /"}


class TestFacts:
    def test_the_resource_is_the_process(self) -> None:
        source = {
            "app_version": "1.4",
            "environment": "production",
            "deployment_id": "d-7",
            "region": "eu-west-1",
            "mlflow.source.git.commit": "c0ffee",
            "mlflow.source.git.branch": "main",
            "mlflow.source.git.repoURL": "https://example.com/x.git",
            "mlflow.source.git.dirty": "true",
            "mlflow.source.name": "app:app",
            "mlflow.user": "www",
            "mlflow.trace_schema.version": "3",
            "pod": "p-1",
        }
        assert resource_attributes(source, "chat", {}) == {
            "service.name": "chat",
            "telemetry.sdk.language": "python",
            "telemetry.sdk.name": "wherefrom",
            "service.version": "1.4",
            "deployment.environment.name": "production",
            "deployment.id": "d-7",
            "cloud.region": "eu-west-1",
            "vcs.ref.head.revision": "c0ffee",
            "vcs.ref.head.name": "main",
            "vcs.repository.url.full": "https://example.com/x.git",
            "mlflow.source.git.dirty": "true",
            "mlflow.source.name": "app:app",
            "process.owner": "www",
            "wherefrom.metadata.pod": "p-1",
        }

    def test_what_is_not_known_is_left_out_and_what_is_configured_wins(self) -> None:
        source = {"deployment_id": "unknown", "region": "unknown", "app_version": "development"}
        configured = {"service.version": "9", "service.name": "named", "k8s.pod.name": "p"}
        assert resource_attributes(source, "chat", configured) == {
            "service.name": "named",
            "telemetry.sdk.language": "python",
            "telemetry.sdk.name": "wherefrom",
            "service.version": "9",
            "k8s.pod.name": "p",
        }

    def test_a_lone_span_with_a_parent_is_a_fragment(self) -> None:
        root, child = make_span(), make_span(span_id=PARENT_ID, parent_id=SPAN_ID)
        joined = make_span(parent_id=PARENT_ID, span_type=SpanType.SERVER)
        info = TraceInfo(f"tr-{TRACE_ID}")
        assert root_of(Trace(info, TraceData([root, child]))) is root
        assert root_of(Trace(info, TraceData([root]))) is root
        assert root_of(Trace(info, TraceData([child]))) is None
        assert root_of(Trace(info, TraceData([joined]))) is joined
        assert root_of(Trace(info)) is None


class TestTable:
    def test_it_does_not_grow_for_ever(self) -> None:
        table = Table(lambda key: lambda value: f"{key}={value}".encode())
        for number in range(1500):
            assert table[str(number)]["x"] == f"{number}=x".encode()
            assert table["same"][number] == f"same={number}".encode()
        assert table["same"]["y" * 600] == b"same=" + b"y" * 600
        assert len(table) <= 1000
        assert len(table["same"]) <= 64


class TestReading:
    def test_fields_of_a_message(self) -> None:
        data = b"\x08\x96\x01" + b"\x12\x02hi" + b"\x19" + b"\x01" * 8 + b"\x25" + b"\x02" * 4
        assert read_fields(data) == {1: 150, 2: b"hi", 3: b"\x01" * 8, 4: b"\x02" * 4}

    @pytest.mark.parametrize("data", [b"\x08", b"\x12\x05hi", b"\x0b", b"\xff" * 11, b"\x19\x01"])
    def test_what_is_no_message(self, data: bytes) -> None:
        with pytest.raises(ValueError, match=r"varint|cut off"):
            read_fields(data)
