"""No request to a page causes an error of the server."""

from __future__ import annotations

import os
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from dataclasses import fields
from random import Random
from typing import Any
from urllib.parse import quote, urlencode

import httpx
import orjson
import pytest

from wherefrom.model import Trace
from wherefrom.stores import Store, open_store
from wherefrom.web.application import make_application
from wherefrom.web.auth import Access
from wherefrom.web.pages import ACTIONS, PAGES

from .conftest import HOSTILE, asking
from .samples import START, make_trace, make_traces

REQUESTS = int(os.environ.get("FUZZED_REQUESTS", "1000"))
SEED = int(os.environ.get("FUZZED_SEED", "10"))

DIGITS = [
    "9" * 400,
    "9" * 4301,
    "-" + "9" * 5000,
    "1e99999",
    "1e300",
    "9.9e299",
    "0",
    "-1",
    str(2**63),
    str(2**53),
]
MOMENTS = [f"{digits} {unit} ago" for digits in DIGITS[:2] for unit in ("d", "ms", "weeks")]
MOMENTS += ["1s ago", "0001-01-01T00:00+23:59", "9999-12-31T23:59:59-23:59", "yesterday", "now", "2025-02-30"]
FIELDS = [
    "status",
    "timestamp",
    "execution_time",
    "end_time",
    "metadata.app_version",
    "tag.x",
    "span.name",
    "user",
]
FIELDS += [
    "span.content",
    "span.attributes.http.route",
    "name",
    "metadata.`a b`",
    "nothing",
    "metadata.",
    "run_id",
]
FIELDS += ["client_request_id", "experiment_id", "request_id", "tag.`é\0`"]
OPERATORS = [
    "=",
    "!=",
    ">",
    "<=",
    "LIKE",
    "NOT LIKE",
    "ILIKE",
    "RLIKE",
    "IN",
    "IS NULL",
    "IS NOT NULL",
    "==",
    "~",
]
VALUES = [
    "'OK'",
    "'%'",
    "''",
    "'(a+)+$'",
    "'\\'",
    "('a', 'b')",
    "()",
    "1",
    "-1.5",
    "'2h ago'",
    "'1.5s'",
    "'[[:x:]]'",
]
VALUES += [*DIGITS, *(f"'{text}'" for text in [*DIGITS, *MOMENTS, HOSTILE.replace("'", "''")])]
TOKENS: list[Any] = [2**63, -(2**63), 2**64 - 1, 1e308, None, "tr-1", True, [], {}, START, 0, "\0"]
TEXTS = [
    "",
    " ",
    "\0",
    "\ud800".encode("utf-8", "replace").decode(),
    "é" * 50,
    "x" * 9999,
    HOSTILE,
    "%",
    "../..",
    "null",
]
IDS = [f"tr-{1:032x}", f"{1:016x}", "tr-", "nothing", "a/b", ".json"]


def a_filter(random: Random, depth: int = 0) -> str:
    if depth < 3 and random.random() < 0.4:
        glue = random.choice([" AND ", " OR ", " and not ", " AND NOT ("])
        return a_filter(random, depth + 1) + glue + a_filter(random, depth + 1) + (")" if "(" in glue else "")
    text = f"{random.choice(FIELDS)} {random.choice(OPERATORS)} {random.choice(VALUES)}"
    if random.random() < 0.1:
        at = random.randrange(len(text))
        text = (
            text[:at] + random.choice(["'", '"', "`", "(", ")", "\\", "\0", "😀", ";", "--"]) + text[at + 1 :]
        )
    return text


def a_token(random: Random) -> str:
    """What looks like a token of ours: of any order, with any values; or what does not."""
    order = random.choice([[["timestamp", True], ["request_id", False]], [["name", False]], [], None, 5])
    content = random.choice(
        [
            [1, order, random.choices(TOKENS, k=2)],
            [random.choice(["f", "l"]), 1, order, random.choices(TOKENS, k=2)],
            random.choices(TOKENS, k=random.randrange(4)),
            random.choice(TOKENS),
        ]
    )
    return urlsafe_b64encode(orjson.dumps(content)).decode()[: random.choice([None, None, None, -1])]


def a_value(random: Random) -> str:
    make: Any = random.choice(
        [
            lambda: a_filter(random),
            lambda: a_token(random),
            lambda: random.choice(MOMENTS),
            lambda: random.choice(DIGITS),
            lambda: random.choice(TEXTS),
            lambda: random.choice(IDS),
            lambda: random.choice(FIELDS),
            lambda: "".join(chr(random.randrange(1, 0xD7FF)) for _ in range(random.randrange(12))),
        ]
    )
    return str(make())


def fitting(random: Random, name: str) -> str:
    """A value for a parameter: of its kind more often than not."""
    kinds: dict[str, Any] = {
        "filter": lambda: a_filter(random),
        "text": lambda: a_filter(random)[: random.randrange(40)],
        "since": lambda: random.choice([*MOMENTS, *DIGITS]),
        "until": lambda: random.choice([*MOMENTS, *DIGITS]),
        "after": lambda: a_token(random),
        "before": lambda: a_token(random),
        "cursor": lambda: a_token(random),
        "by": lambda: random.choice(FIELDS),
        "experiment": lambda: random.choice(["default", *TEXTS]),
        "size": lambda: random.choice(["1", "500", *DIGITS]),
        "trace_id": lambda: random.choice(IDS),
        "span_id": lambda: random.choice(IDS),
    }
    return str(kinds[name]()) if name in kinds and random.random() < 0.8 else a_value(random)


def a_request(random: Random) -> tuple[str, str, dict[str, Any]]:
    """Method, address and what goes with it."""
    page: Any = random.choice([*PAGES, *PAGES, *PAGES, *ACTIONS])
    suffixes = [".json", ".json", *(f".{one.suffix}" for one in getattr(page, "downloads", ()))]
    path = page.path + random.choice(["" if getattr(page, "template", None) else ".json", *suffixes])
    if page in ACTIONS or page.path.startswith("/api/"):
        path = page.path
    pairs = []
    for row in fields(page.query):
        if f"{{{row.name}}}" in path:
            path = path.replace(f"{{{row.name}}}", quote(fitting(random, row.name)[:200], safe=""))
        elif random.random() < 0.4:
            pairs += [(row.name, fitting(random, row.name))] * random.choice([1, 1, 1, 2])
    if random.random() < 0.05:
        pairs.append((a_value(random)[:50], a_value(random)))
    content: dict[str, Any] = {}
    if page in ACTIONS:
        content["content"] = urlencode([(a_value(random)[:20], a_value(random)) for _ in range(2)])
    return "POST" if page in ACTIONS else "GET", f"{path}?{urlencode(pairs)}", content


def odd_traces() -> list[Trace]:
    """What an older version may have stored: moments, durations and texts at their ends."""
    odd = [
        make_trace(90, request_time=-(2**62), execution_duration=None, spans=[]),
        make_trace(91, request_time=9_223_372_036_854_775_000, spans=[]),
        make_trace(92, request_time=-62_167_219_200_000, spans=[], execution_duration=-5),
        make_trace(93, name=HOSTILE, metadata={HOSTILE: HOSTILE, "": ""}, tags={HOSTILE: HOSTILE}),
        make_trace(
            94, attributes={"wherefrom.response.chunks": "x", "http.response.body.size": 1e300, "n": None}
        ),
    ]
    odd[4].data.spans[0].links = [{}, {"trace_id": 5, "span_id": None, "attributes": []}]
    return odd


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    store = open_store(f"sqlite:///{tmp_path_factory.mktemp('hostile') / 'wherefrom.db'}")
    store.write([*make_traces(30), *odd_traces()])
    yield store
    store.close()


async def test_no_request_is_answered_with_500(crowded: Store) -> None:
    """Pages, twins, downloads and forms with filters, tokens, moments and texts of any kind: seeded."""
    random = Random(SEED)
    found: dict[str, str] = {}
    statuses: dict[int, int] = {}
    async with asking(make_application(crowded, Access())) as client:
        for _ in range(REQUESTS):
            method, url, content = a_request(random)
            try:
                answer: httpx.Response = await client.request(method, url, **content)
                statuses[answer.status_code] = statuses.get(answer.status_code, 0) + 1
                if answer.status_code == 500:
                    found.setdefault(answer.text[:80], f"{method} {url}")
            except httpx.InvalidURL:
                continue
            except Exception as error:
                found.setdefault(f"{type(error).__name__}: {error}"[:200], f"{method} {url}"[:600])
    print(statuses)
    assert not found, "\n".join(f"{error}\n    {url}" for error, url in found.items())
    assert statuses[200] > REQUESTS / 10


@pytest.mark.parametrize(
    "query",
    [
        {"filter": f"execution_time > {'9' * 4301}"},
        {"filter": f"metadata.x = -{'9' * 5000}"},
        {"filter": f"timestamp > '{'9' * 400} d ago'"},
        {"since": f"{'9' * 400} d ago"},
        {"until": f"{'9' * 400} d ago"},
        {"after": urlsafe_b64encode(orjson.dumps([1, [["timestamp", True]], [2**63]])).decode()},
    ],
)
@pytest.mark.parametrize("path", ["/traces", "/traces.json"])
async def test_numbers_without_end_are_said_to_be_no_numbers(
    client: httpx.AsyncClient, path: str, query: dict[str, str]
) -> None:
    answer = await client.get(path, params=query)
    assert answer.status_code == 400
