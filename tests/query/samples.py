"""Random traces and random filters over one small vocabulary, so that they often meet."""

from __future__ import annotations

from random import Random

from hypothesis import strategies as st

from wherefrom import keys
from wherefrom.model import (
    Source,
    Span,
    SpanStatus,
    SpanStatusCode,
    Trace,
    TraceData,
    TraceInfo,
    TraceState,
)
from wherefrom.query.fields import (
    METADATA,
    PATTERN,
    RUN_ID,
    SPAN_ATTRIBUTE,
    SPAN_FIELDS,
    TAG,
    TRACE_FIELDS,
    Field,
    Operator,
    Type,
    with_key,
)
from wherefrom.query.tree import And, Compare, Node, Not, Or

TEXTS = (
    "",
    "a",
    "A",
    "ab",
    "aB",
    "b",
    "1",
    "1.0",
    "01",
    "-5",
    "2e3",
    " 1",
    "é",
    "É",
    "a%",
    "a_",
    "%",
    "x'y",
    'x"y',
    "a\\b",
    "l\nm",
    "[a]",
    "*",
    "?",
    "🙂",
    "null",
    "true",
    keys.SESSION,
)
KEYS = (
    "app_version",
    "env",
    "k",
    "key with space",
    "key.dots",
    "it's",
    'say "x"',
    "back\\slash",
    "tick`",
    "ключ",
    "🙂",
    "a\x00b",
    "",
    "$",
    "[0]",
    "a\nb",
    keys.SESSION,
    keys.USER,
)
PATTERNS = ("a", "a%", "%b", "_", "%", "", "%'%", "_%_", "A%", "%\\%", "[a]", "*", "é", "%%a%%", "1%0")
REGEXES = (
    "a",
    "^a",
    "b$",
    "^[ab]+$",
    r"^\w+$",
    r"\d",
    r"^\s",
    "(?i)^ab?$",
    "^.$",
    "",
    r"[^a-z]",
    r"\\",
    "x['\"]y",
    "(a|b)+",
)
NUMBERS = (0, 1, -5, 1.5, 2000, 10**20, 1e-3)
NAMES = ("GET /a", "a", "A", "é", "")
MOMENTS = tuple(1_700_000_000_000 + step for step in (0, 1, 5, 1000, 1001))
VALUES_OF_ATTRIBUTES = ("a", "1", "", 1, 1.5, True, False, None, [1, "a"], {"a": 1}, "é")


KNOWN_ATTRIBUTES = {
    "http.response.status_code": (0, 1, 200, 2000),
    "wherefrom.outcome": TEXTS,
    "error.type": TEXTS,
    "gen_ai.request.model": TEXTS,
    "gen_ai.response.model": TEXTS,
    "wherefrom.time_to_first_byte_ms": (0, 1, 1.5, 2000),
}
"""Attributes that fields of traces read."""
OF_A_TRACE = {keys.SESSION, keys.USER}  # never of a whole process


def random_traces(random: Random, count: int) -> list[Trace]:
    shared = [_some_pairs(random) for _ in range(4)]
    sources = [
        Source({key: value for key, value in pairs.items() if key not in OF_A_TRACE}) for pairs in shared
    ]
    return [_random_trace(random, sources) for _ in range(count)]


def _random_trace(random: Random, sources: list[Source]) -> Trace:
    source = random.choice([*sources, None])
    trace_id = f"tr-{random.getrandbits(128):032x}"
    info = TraceInfo(
        trace_id=trace_id,
        experiment="default",
        request_time=random.choice(MOMENTS),
        execution_duration=random.choice([None, 0, 1, 5, 2000]),
        state=random.choice(list(TraceState)),
        client_request_id=random.choice([None, *TEXTS]),
        request_preview=random.choice([None, *TEXTS]),
        response_preview=random.choice([None, *TEXTS]),
        trace_metadata={**(source or {}), **_some_pairs(random), **_usage(random)},
        tags=_some_pairs(random) | random.choice([{}, {keys.TRACE_NAME_TAG: random.choice(NAMES)}]),
        source=source,
    )
    return Trace(
        info, TraceData([_random_span(random, trace_id) for _ in range(random.choice([0, 0, 1, 3]))])
    )


def _random_span(random: Random, trace_id: str) -> Span:
    attributes = {
        key: random.choice(VALUES_OF_ATTRIBUTES) for key in random.sample(KEYS, random.randrange(4))
    }
    attributes |= {
        key: random.choice(values) for key, values in KNOWN_ATTRIBUTES.items() if random.random() < 0.3
    }
    return Span(
        trace_id,
        f"{random.getrandbits(64):016x}",
        None,
        random.choice(NAMES),
        random.choice(["LLM", "TOOL", "a"]),
        random.choice(MOMENTS) * 1_000_000,
        status=SpanStatus(random.choice(list(SpanStatusCode)), random.choice(TEXTS)),
        attributes=attributes,
    )


def _usage(random: Random) -> dict[str, str]:
    """What the fields ``tokens`` and ``cost`` read, of some traces in forms that hold no number."""
    texts = {
        keys.TOKEN_USAGE: ['{"total_tokens": 1}', '{"total_tokens":2000,"x":1}', '{"total_tokens":"1"}', "1"],
        keys.COST: ['{"total_cost": 1e-3}', '{"total_cost": -5}', '{"total_cost": null}', '{"cost": 1}', ""],
    }
    return {key: random.choice(values) for key, values in texts.items() if random.random() < 0.5}


def _some_pairs(random: Random) -> dict[str, str]:
    return {key: random.choice(TEXTS) for key in random.sample(KEYS, random.randrange(5))}


def _keyed(field: Field) -> st.SearchStrategy[Field]:
    return st.sampled_from([*KEYS, "nobody"]).map(lambda key: with_key(field, key))


fields = st.one_of(
    st.sampled_from([*TRACE_FIELDS, RUN_ID, *SPAN_FIELDS[:4]]),
    _keyed(METADATA),
    _keyed(TAG),
    _keyed(SPAN_ATTRIBUTE),
)


@st.composite
def comparisons(draw: st.DrawFn) -> Compare:
    field = draw(fields)
    operator = draw(st.sampled_from(field.operators))
    return Compare(field, operator, draw(_values(field, operator)))


def _values(field: Field, operator: Operator) -> st.SearchStrategy[str | float | tuple[str, ...] | None]:
    if operator in {Operator.IS_NULL, Operator.IS_NOT_NULL}:
        return st.none()
    if operator is Operator.RLIKE:
        return st.sampled_from(REGEXES)
    if operator in PATTERN:
        return st.sampled_from(PATTERNS)
    if operator in {Operator.IN, Operator.NOT_IN}:
        return st.lists(_texts, min_size=1, max_size=3).map(tuple)
    if field.type is Type.TIME:
        return st.sampled_from([*MOMENTS, 0, 1e3])
    if field.type is Type.DURATION:
        return st.sampled_from([0, 1, 4.5, 2000, -1])
    if field.type is Type.TEXT:
        return _texts
    if field.type is Type.NUMBER:
        return st.sampled_from(NUMBERS)
    numbers = st.sampled_from(NUMBERS)
    return _texts | numbers if operator in {Operator.EQ, Operator.NE} else numbers


_texts = st.sampled_from([*TEXTS, *NAMES, "OK", "ERROR", "LLM", "LOCAL"])

filters: st.SearchStrategy[Node] = st.recursive(
    comparisons(),
    lambda parts: st.one_of(
        st.lists(parts, min_size=2, max_size=3).map(lambda nodes: And(tuple(nodes))),
        st.lists(parts, min_size=2, max_size=3).map(lambda nodes: Or(tuple(nodes))),
        parts.map(Not),
    ),
    max_leaves=8,
)
