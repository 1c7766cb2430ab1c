from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Any

import httpx
import pytest
from fastapi import Depends, FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from wherefrom.analysis.listing import ORDERS
from wherefrom.web.parameters import (
    DEFAULT_COLUMNS,
    ChangesQuery,
    CompareQuery,
    PageQuery,
    ParameterError,
    SessionQuery,
    SpanQuery,
    TracesQuery,
    encode,
    parameter_error,
    reader_of,
    time_ranges,
)

from .conftest import asking

NOTHING = {
    "experiment": None, "since": None, "until": None, "filter": None, "order": "newest", "size": 50,
    "after": None, "before": None, "columns": DEFAULT_COLUMNS, "live": False, "split": None,
}  # fmt: skip


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    """An app that answers with the queries it read, or with its error."""
    app = FastAPI()

    async def refuse(_request: Request, error: Exception) -> Response:
        if isinstance(error, RequestValidationError):
            error = parameter_error(error)
        return PlainTextResponse(str(error), 400)

    app.add_exception_handler(RequestValidationError, refuse)
    app.add_exception_handler(ParameterError, refuse)

    def add(path: str, kind: type[PageQuery]) -> None:
        read = Depends(reader_of(kind))

        @app.get(path)
        async def answer(query: Any = read) -> dict[str, Any]:
            return {"values": asdict(query), "given": query.given}

    add("/traces", TracesQuery)
    add("/changes", ChangesQuery)
    add("/traces/{trace_id}/spans/{span_id}", SpanQuery)
    async with asking(app) as client:
        yield client


async def test_absent_parameters_have_their_defaults(client: httpx.AsyncClient) -> None:
    """An empty text counts as absent: a form sends the fields that were not filled in."""
    for path in ("/traces", "/traces?filter=&columns=&after=&columns="):
        answer = (await client.get(path)).json()
        assert answer == {"values": {**NOTHING, "columns": list(DEFAULT_COLUMNS)}, "given": {}}
    assert CompareQuery(by="").by == CompareQuery().by
    assert SessionQuery(id="").id == ""


async def test_values_have_their_types(client: httpx.AsyncClient) -> None:
    """Numbers, booleans, repeated texts and parts of the path are read as what they are."""
    path = "/traces?size=7&live=true&columns=name&columns=tag.a&order=slowest"
    values = (await client.get(path)).json()["values"]
    expected = {"size": 7, "live": True, "columns": ["name", "tag.a"], "order": "slowest"}
    assert values == {**NOTHING, **expected}
    assert (await client.get("/changes?p95_ms=0.5")).json()["values"]["p95_ms"] == 0.5
    span = (await client.get("/traces/tr-1/spans/2")).json()
    nothing = dict.fromkeys(("experiment", "filter", "since", "until", "search"))
    assert {**nothing, "trace_id": "tr-1", "span_id": "2", "errors": False}.items() <= span["values"].items()
    assert span["given"] == {}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("size", "0", "size: input should be greater than or equal to 1, not '0'"),
        ("size", "501", "size: input should be less than or equal to 500"),
        ("size", "1e9", "not '1e9'"),
        ("size", "", "size: input should be a valid integer"),
        ("size", "9" * 5000, "size: "),
        ("order", "", "order: input should be 'newest', 'oldest'"),
        ("size", "٣", "size: "),
        ("live", "maybe", "live: input should be a valid boolean"),
        ("order", "best", "order: input should be 'newest', 'oldest', 'slowest' or 'fastest', not 'best'"),
        ("filter", "x" * 10_001, "filter: string should have at most 10000 characters"),
        ("columns", "x", "columns: expected a column such as duration, metadata.tier or tag.team, not 'x'"),
        ("sise", "1", "unknown parameter 'sise'; did you mean size or since?"),
        ("trace_id", "tr-2", "unknown parameter 'trace_id'"),
    ],
)
async def test_an_invalid_parameter_is_named(
    client: httpx.AsyncClient, name: str, text: str, message: str
) -> None:
    """One short sentence has the parameter, what it accepts, and the value."""
    answer = await client.get("/traces", params={name: text})
    assert answer.status_code == 400
    assert message in answer.text
    assert len(answer.text) < 200


@pytest.mark.parametrize("text", ["nan", "inf", "-1", "1e999", "x"])
async def test_a_number_is_finite_and_in_range(client: httpx.AsyncClient, text: str) -> None:
    """Neither NaN nor infinity is a duration."""
    answer = await client.get("/changes", params={"p95_ms": text})
    assert answer.status_code == 400
    assert answer.text.startswith("p95_ms: ")


async def test_a_single_value_is_not_repeated(client: httpx.AsyncClient) -> None:
    """Of two values neither is chosen; a list has a limit."""
    answer = await client.get("/traces?size=1&size=2")
    assert (answer.status_code, answer.text) == (400, "size: expected one value, not 2")
    answer = await client.get("/traces", params={"columns": ["name"] * 101})
    assert answer.status_code == 400
    assert "at most 100 items" in answer.text


def test_links_keep_what_differs_from_the_defaults() -> None:
    """With changes; ``None`` removes a parameter, and parts of the path are no parameters."""
    query = TracesQuery(size=7, live=True, columns=("a", "b"), order="newest")
    assert query.given == {"size": ("7",), "columns": ("a", "b"), "live": ("true",)}
    assert query.encoded(size=None, live=False) == "columns=a&columns=b&live=false"
    assert SpanQuery(trace_id="tr-1", span_id="2").encoded() == ""


def test_addresses_leave_out_what_is_empty() -> None:
    """``None``, an empty text and an empty list do not appear."""
    assert (
        encode({"a": None, "b": "", "c": (), "d": 0, "e": "x y&z", "f": ["1", "2"]})
        == "d=0&e=x+y%26z&f=1&f=2"
    )


def test_the_orders_are_those_of_a_listing() -> None:
    """The parameter and the analysis have the same names."""
    for order in ORDERS:
        assert TracesQuery(order=order).order == order  # type: ignore[arg-type] # the names of the analysis
    assert list(ORDERS) == ["newest", "oldest", "slowest", "fastest"]


def test_a_page_with_a_time_range_offers_others() -> None:
    """The one it shows is marked, if it goes up to now."""
    assert [one.title for one in time_ranges(TracesQuery()) if one.is_chosen] == ["24 hours"]
    assert [one.title for one in time_ranges(TracesQuery(since="0")) if one.is_chosen] == ["All"]
    assert not [one for one in time_ranges(TracesQuery(until="now")) if one.is_chosen]
    assert not list(time_ranges(PageQuery()))
