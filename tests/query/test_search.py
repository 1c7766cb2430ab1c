"""What our own additions mean, and that deep filters and hard patterns stay cheap."""

from __future__ import annotations

import time
from random import Random
from typing import Any

import pytest

from wherefrom import keys
from wherefrom.client import TraceClient
from wherefrom.exceptions import FilterError
from wherefrom.model import Source, Span, SpanStatus, SpanStatusCode, Trace, TraceInfo
from wherefrom.stores import Store


def span(trace: Trace, name: str, code: str = "OK", **attributes: Any) -> None:
    number = len(trace.data.spans) + 1
    status = SpanStatus(SpanStatusCode(code))
    trace.data.spans.append(
        Span(trace.info.trace_id, f"{number:016x}", None, name, "TOOL", 1, 2, status, attributes=attributes)
    )


@pytest.fixture
def client(store: Store) -> TraceClient:
    return TraceClient(store)


def timed(client: TraceClient, text: str) -> float:
    started = time.perf_counter()
    client.search_traces(filter_string=text)
    return time.perf_counter() - started


def found(client: TraceClient, text: str) -> set[str | None]:
    return {trace.info.name for trace in client.search_traces(filter_string=text)}


SPAN_CONDITIONS = [
    ("span.name = 'call' AND span.status = 'ERROR'", "a"),
    ("span.name = 'call' AND (span.status = 'ERROR' OR span.status = 'OK')", "ab"),
    ("span.name = 'call' AND NOT span.status = 'ERROR'", ""),
    ("span.name = 'call' AND span.status != 'ERROR'", "b"),
    ("NOT span.name = 'call'", "cd"),
    ("NOT (span.name = 'call' AND span.status = 'ERROR')", "bcd"),
    ("(span.name = 'save' OR name = 'd') AND (span.status = 'ERROR' OR name = 'd')", "bd"),
    ("span.name = 'call' AND (span.status = 'ERROR' OR name = 'b')", "ab"),
    ("span.attributes.cost > 4", "ab"),
    ("span.attributes.cost >= 7", "b"),
    ("span.attributes.cost = '2.5'", "b"),
    ("span.attributes.cost IS NULL AND span.name = 'call'", ""),
    ("span.attributes.nobody IS NULL", "abc"),
    ("span.attributes.nobody IS NOT NULL", ""),
    ("text LIKE '%call%' AND name != 'a'", "b"),
    ("name = 'd' OR span.name = 'save'", "bd"),
]


def test_conditions_on_spans_speak_of_one_span(store: Store, client: TraceClient, make_trace: Any) -> None:
    """a: a failed call; b: a good call and another failure; c: no call; d: no spans at all."""
    made = {name: make_trace(name, tags={keys.TRACE_NAME_TAG: name}) for name in "abcd"}
    span(made["a"], "call", "ERROR", cost=5)
    span(made["b"], "call", cost=2.5)
    span(made["b"], "save", "ERROR", cost="7")
    made["d"].data.spans.clear()
    store.write(list(made.values()))
    for text, names in SPAN_CONDITIONS:
        assert found(client, text) == set(names), text


NUMBERS_AND_TIMES: list[tuple[str, str | None]] = [
    ("metadata.budget > 200", "b"),
    ("metadata.budget <= 200", "a"),
    ("metadata.budget = 200", "a"),
    ("metadata.budget = '200'", ""),
    ("metadata.budget != 200", "b"),
    ("NOT metadata.budget > 200", "acd"),
    ("tag.score < 0", "d"),
    ("metadata.budget > 99999999999999999999999", ""),
    ("timestamp < 99999999999999999999999", "abcd"),
    ("metadata.mlflow.trace.infoFinalized = 'true' AND tag.mlflow.artifactLocation IS NOT NULL", "abcd"),
    ("execution_time > '4ms' AND execution_time < '1s'", "abcd"),
    ("timestamp > '2h ago'", ""),
    ("timestamp > '2023-11-14' AND end_time < now", None),
    ("timestamp > '2023-11-14' AND end_time < 'now'", "abcd"),
]


def test_numbers_and_times(store: Store, client: TraceClient, make_trace: Any) -> None:
    budgets = {"a": {"budget": "200.0"}, "b": {"budget": "2e3"}, "c": {"budget": "much"}, "d": {}}
    scores = {"d": {"score": "-.5"}}
    for name, budget in budgets.items():
        tags = {keys.TRACE_NAME_TAG: name} | scores.get(name, {})
        store.write([make_trace(name, trace_metadata=budget, tags=tags)])
    for text, names in NUMBERS_AND_TIMES:
        if names is None:
            with pytest.raises(FilterError):
                found(client, text)
        else:
            assert found(client, text) == set(names), text


REGEXES = [
    (r"^\w+$", "Straße", True),
    (r"^\w+$", "a b", False),
    (r"^\W$", "é", False),
    (r"^[\w ]+$", "é ß", True),
    (r"\d", "٣", True),
    (r"^[^\d]$", "٣", False),
    (r"\s", "a\u00a0b", True),
    (r"\S", "\u2003", False),
    (r"[\s]x", "\u2003x", True),
    (r"a\Z", "a", True),
    (r"^[]a]+$", "]a", True),
    (r"^[^]a]+$", "]", False),
    (r"^[a[b]+$", "[", True),
    (r"^[[]x]$", "[x]", True),
    (r"^[\]\\]+$", "]\\", True),
    (r"\\d", "\\d", True),
    (r"(?i)É", "é", True),
    ("^.$", "🙂", True),
    ("^a$", "a\nb", False),
    (r"\.", "a.b", True),
]


def test_rlike_reads_patterns_as_python_does(store: Store, client: TraceClient, make_trace: Any) -> None:
    store.write([make_trace(trace_metadata={f"k{n}": value}) for n, (_, value, _) in enumerate(REGEXES)])
    for number, (pattern, _, there) in enumerate(REGEXES):
        text = f"metadata.k{number} RLIKE '{pattern}'"
        assert len(client.search_traces(filter_string=text)) == there, text


def test_no_pattern_hangs_the_reader(store: Store, client: TraceClient, make_trace: Any) -> None:
    store.write([make_trace(trace_metadata={"k": "a" * 10_000 + "!"})])
    for pattern in ("(a+)+$", "(a|aa)+$", "(.*)*b$", "(a*)*c", "(?:a?){50}a{50}$"):
        text = f"metadata.k RLIKE '{pattern}'"
        assert timed(client, text) < 20, pattern  # backtracking would take longer than anybody has


def test_like_with_many_wildcards_stays_cheap(store: Store, client: TraceClient, make_trace: Any) -> None:
    store.write([make_trace(trace_metadata={"k": "a" * 10_000})])
    started = time.thread_time()
    for operator in ("LIKE", "ILIKE"):
        assert not client.search_traces(filter_string=f"metadata.k {operator} '{'%a' * 30}%b'")
    assert time.thread_time() - started < 1


def nested(depth: int) -> str:
    text = "metadata.k = 'x'"
    for level in range(depth):
        word = "OR" if level % 2 else "AND"
        text = f"(name = 'a' {word} {text})"
    return text


LARGEST = [
    nested(20),
    "(" * 100 + "name = 'a'" + ")" * 100,
    "NOT " * 20 + "metadata.k = 'x'",
    " AND ".join(["metadata.k != 'y'"] * 500),
    " OR ".join(f"metadata.k = '{number}'" for number in range(500)),
    " OR ".join(f"(span.name = 'a' AND span.attributes.k = '{number}')" for number in range(250)),
    "metadata.k IN (" + ", ".join(f"'{number}'" for number in range(5000)) + ")",
]


def test_the_largest_filters_are_answered_soon(store: Store, client: TraceClient, make_trace: Any) -> None:
    trace = make_trace(trace_metadata={"k": "x"})
    trace.data.spans[0].attributes["k"] = "x"
    store.write([trace])
    for text in LARGEST:
        started = time.thread_time()
        client.search_traces(filter_string=text)
        assert time.thread_time() - started < 3, text[:80]


def test_a_key_of_every_source_orders_by_the_source(
    store: Store, client: TraceClient, make_trace: Any
) -> None:
    for version in ("2", "1", "3"):
        source = Source({"app_version": version})
        store.write([make_trace(version, trace_metadata=dict(source), source=source)])
    ordered = client.search_traces(order_by=["metadata.app_version DESC"])
    assert [trace.info.name for trace in ordered] == ["3", "2", "1"]


@pytest.mark.parametrize("filter_string", [None, "name = 'a'"])
@pytest.mark.parametrize(
    "durations", [[*range(40)], [7] * 40, [None] * 40, [1, 2, 2, None] * 10, [9, *[4] * 38, None]]
)
def test_equal_durations_are_ordered_by_time_and_id(
    store: Store, client: TraceClient, durations: list[int | None], filter_string: str | None
) -> None:
    """However many are equal, on this page or on the next; those without one come last."""
    random = Random(1)
    random.shuffle(durations)
    infos = [
        TraceInfo(
            f"tr-{random.getrandbits(128):032x}",
            request_time=random.randrange(5),
            execution_duration=duration,
            tags={keys.TRACE_NAME_TAG: "a"},
        )
        for duration in durations
    ]
    store.write([Trace(info) for info in infos])
    for order, sign in (("execution_time DESC", -1), ("execution_time ASC", 1)):
        expected = sorted(
            infos,
            key=lambda one: (
                one.execution_duration is None,
                sign * (one.execution_duration or 0),
                -one.request_time,
                one.trace_id,
            ),
        )
        asked: dict[str, Any] = {"filter_string": filter_string, "order_by": [order], "max_results": 6}
        page = client.search_traces(**asked)
        second = client.search_traces(**asked, page_token=page.token)
        shown = [trace.info.trace_id for trace in (*page, *second)]
        assert shown == [info.trace_id for info in expected[:12]]
