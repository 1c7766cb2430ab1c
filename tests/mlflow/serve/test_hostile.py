"""Whatever is sent, the answer is no fault of the server's, and no bigger than it has to be."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wherefrom.mlflow.serve import CALLS, make_application
from wherefrom.stores import Store, open_store
from wherefrom.web.auth import Access

from ...query import recorded

NAMES = (
    "locations", "filter", "max_results", "order_by", "page_token", "trace_ids", "trace_id", "key", "value",
    "experiment_id", "experiment_name", "view_type", "allow_partial", "",
)  # fmt: skip
PATHS = sorted({call.path for call in CALLS} | {"/", "/health", "/version", "/api/2.0/mlflow/runs/create"})
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")

numbers = st.integers(-(2**70), 2**70) | st.floats() | st.sampled_from([1, "1", "-1", "1e3", 500, 501])
texts = st.text(max_size=20) | st.sampled_from(
    ["1", "main", "tr-1", "status = 'OK'", "name RLIKE '('", "timestamp DESC", "x" * 5000, "\0", "'", "%"]
)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(texts | st.sampled_from(NAMES), inner, max_size=4)
    ),
    max_leaves=8,
)
places = st.builds(lambda id_: [{"mlflow_experiment": {"experiment_id": id_}}], texts)
bodies = st.fixed_dictionaries({}, optional=dict.fromkeys(NAMES, values | places))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    path: Path = tmp_path_factory.mktemp("hostile")
    store = open_store(f"sqlite:///{path / 'wherefrom.db'}")
    store.write(list(recorded.load_traces().values())[:5])
    yield store
    store.close()


def fuzzed(test: Any) -> Any:
    return settings(deadline=None, max_examples=150, suppress_health_check=list(HealthCheck))(test)


async def send(store: Store, method: str, path: str, **content: Any) -> httpx.Response:
    transport = httpx.ASGITransport(make_application(store, Access()), raise_app_exceptions=True)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        return await client.request(method, path, **content)


def check(answer: httpx.Response) -> None:
    assert answer.status_code in {200, 400, 404, 405, 501}, answer.text
    if answer.status_code != 200 and answer.request.method != "HEAD":
        assert set(answer.json()) == {"error_code", "message"}
        assert answer.json()["message"]


@fuzzed
@given(st.sampled_from(METHODS), st.sampled_from(PATHS), st.text("abc/%.{}\0é", max_size=9), bodies)
async def test_bodies(store: Store, method: str, path: str, id_: str, body: dict[str, Any]) -> None:
    """Every parameter of every type, wanted or not."""
    content = orjson.dumps(body, default=str) if _is_json(body) else repr(body).encode("utf-8", "replace")
    url = path.replace("{trace_id}", quote(id_, safe=""))
    check(await send(store, method, url, content=content, headers={"content-type": "application/json"}))


@fuzzed
@given(st.sampled_from(PATHS), st.lists(st.tuples(st.sampled_from(NAMES), texts), max_size=5))
async def test_queries(store: Store, path: str, pairs: list[tuple[str, str]]) -> None:
    """Every parameter of a GET, once or several times."""
    check(await send(store, "GET", path, params=[(name, _encodable(text)) for name, text in pairs]))


@fuzzed
@given(st.binary(max_size=200), st.binary(max_size=30))
async def test_bytes(store: Store, body: bytes, media_type: bytes) -> None:
    """What is no JSON, said to be anything."""
    for kind in (b"application/json", media_type):
        headers = [(b"content-type", kind)]
        check(await send(store, "POST", "/api/3.0/mlflow/traces/search", content=body, headers=headers))


@pytest.mark.parametrize(
    "path", ["/%ff", "/%00", "/api/3.0/mlflow/traces/%2e%2e%2f", "/" + "a/" * 2000, "/\\"]
)
async def test_paths(store: Store, path: str) -> None:
    check(await send(store, "GET", path))


def _is_json(body: Any) -> bool:
    try:
        orjson.dumps(body)
    except TypeError:
        return False
    return True


def _encodable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
