"""Who is answered."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import AsyncIterator

import httpx
import pytest

from wherefrom.mlflow.serve import make_application
from wherefrom.stores import Store
from wherefrom.web.auth import Access

TOKEN = "sésame:öffne dich"


@pytest.fixture
async def guarded(store: Store) -> AsyncIterator[httpx.AsyncClient]:
    """An application that requires a token, under any host name."""
    transport = httpx.ASGITransport(make_application(store, Access(TOKEN)))
    async with httpx.AsyncClient(transport=transport, base_url="http://traces.example") as client:
        yield client


def basic(text: str) -> str:
    return "Basic " + b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    "authorization", [f"Bearer {TOKEN}", f"bearer  {TOKEN} ", basic(f"me:{TOKEN}"), basic(f":{TOKEN}")]
)
async def test_the_token_opens(guarded: httpx.AsyncClient, authorization: str) -> None:
    """As a bearer token, or as the password of any user."""
    answer = await guarded.get("/version", headers=[(b"authorization", authorization.encode("latin-1"))])
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        TOKEN,
        basic(TOKEN),
        basic(f"{TOKEN}:"),
        "Basic ???",
        "Basic /w==",
        "Digest " + TOKEN,
        "Bearer \xff\xfe",
    ],
)
async def test_nothing_else_does(guarded: httpx.AsyncClient, authorization: str) -> None:
    """Without it, neither supported nor unsupported calls are answered."""
    for path in ("/version", "/api/3.0/mlflow/traces/tr-1", "/nothing"):
        answer = await guarded.get(path, headers=[(b"authorization", authorization.encode("latin-1"))])
        assert answer.status_code == 401
        assert answer.json()["error_code"] == "UNAUTHENTICATED"
        assert "MLFLOW_TRACKING_TOKEN" in answer.json()["message"]
        assert answer.headers["www-authenticate"] == 'Basic realm="Wherefrom"'


async def test_health_is_open(guarded: httpx.AsyncClient) -> None:
    assert (await guarded.get("/health")).status_code == 200


@pytest.mark.parametrize("host", ["127.0.0.1:8500", "localhost", "LOCALHOST:1", "[::1]:8500", "[::1]"])
async def test_this_machine_has_few_names(http: httpx.AsyncClient, host: str) -> None:
    assert (await http.get("/version", headers={"host": host})).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8500", "127.0.0.1.evil.example", "", "localhost.evil:80", "[::1"]
)
async def test_no_other_name_is_answered(http: httpx.AsyncClient, host: str) -> None:
    """A foreign page may use a name that resolves to this machine."""
    for path in ("/version", "/api/3.0/mlflow/traces/tr-1", "/nothing"):
        answer = await http.get(path, headers={"host": host})
        assert answer.status_code == 403
        assert answer.json()["error_code"] == "PERMISSION_DENIED"


@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", "", "json"])
async def test_a_form_of_a_stranger_changes_nothing(http: httpx.AsyncClient, media_type: str) -> None:
    """A browser sends JSON to another site only if that site allows it."""
    for method, path in (
        ("POST", "/api/3.0/mlflow/traces/search"),
        ("PATCH", "/api/2.0/mlflow/traces/tr-1/tags"),
        ("DELETE", "/api/2.0/mlflow/traces/tr-1/tags"),
    ):
        answer = await http.request(
            method, path, content=b'{"key": "k"}', headers={"content-type": media_type}
        )
        assert answer.status_code == 400
        assert answer.json()["message"] == "the body takes Content-Type: application/json"
    assert "access-control-allow-origin" not in answer.headers


async def test_json_in_any_spelling(http: httpx.AsyncClient) -> None:
    headers = {"content-type": "Application/JSON; charset=utf-8"}
    answer = await http.post("/api/3.0/mlflow/traces/batchGetInfos", content=b"{}", headers=headers)
    assert "Missing value" in answer.json()["message"]
