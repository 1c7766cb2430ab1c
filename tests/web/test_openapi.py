"""The JSON API responds to documented requests as documented.

Schemas cannot describe filters and times, so not every text is expected to be valid.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from starlette.applications import Starlette
from starlette.routing import Mount

from wherefrom.model import TraceState
from wherefrom.stores import Store, open_store
from wherefrom.web.application import make_application
from wherefrom.web.auth import Access
from wherefrom.web.pages import PAGES
from wherefrom.web.queries import QueryPool

from .conftest import HOSTILE, asking
from .samples import make_trace, make_traces


@pytest.fixture(scope="module")
def application(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The page over a store of all sorts of traces."""
    path = Path(tmp_path_factory.mktemp("api")) / "wherefrom.db"
    store = open_store(f"sqlite:///{path}")
    odd = make_trace(
        50, name=HOSTILE, state=TraceState.IN_PROGRESS, execution_duration=None, experiment="other",
        metadata={"feature_flag_new": "true", HOSTILE: HOSTILE},
    )  # fmt: skip
    bare = make_trace(51, spans=[], client_request_id=None, trace_metadata={}, tags={})
    store.write(
        [*make_traces(40), *(make_trace(number, failed=True, version="2") for number in range(41, 50))]
    )
    store.write([odd, bare])
    yield make_application(store, Access(), QueryPool(seconds=60))  # a busy machine is no failure
    store.close()


@pytest.fixture(scope="module")
def api(application: Any) -> Any:
    import schemathesis

    return schemathesis.openapi.from_asgi("/openapi.json", application)


PATHS = [
    path for page in PAGES for path in (page.twin, *(f"{page.path}.{one.suffix}" for one in page.downloads))
]


@pytest.mark.parametrize("path", PATHS)
def test_every_answer_is_documented(api: Any, path: str) -> None:
    """No 5xx, no status, media type or form that the document does not name; bad input is refused.

    No schema tells what is a filter or a moment: that any text is taken is not expected.
    """
    from schemathesis import GenerationMode
    from schemathesis.specs.openapi.checks import positive_data_acceptance

    operation = api[path]["GET"]

    @given(operation.as_strategy() | operation.as_strategy(generation_mode=GenerationMode.NEGATIVE))
    @settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
    def ask(case: Any) -> None:
        case.call_and_validate(excluded_checks=[positive_data_acceptance])

    ask()


async def test_the_document_describes_every_twin_and_download(application: Any) -> None:
    """With its parameters, its schema and the errors it may answer with, and nothing else."""
    async with asking(application) as client:
        document = (await client.get("/openapi.json")).json()
    assert list(document["paths"]) == PATHS
    assert all(list(methods) == ["get"] for methods in document["paths"].values())
    asked = {one["name"]: one for one in document["paths"]["/traces.json"]["get"]["parameters"]}
    size = {"type": "integer", "minimum": 1, "maximum": 500, "default": 50}
    assert asked["size"]["schema"].items() >= size.items()
    assert asked["order"]["schema"]["enum"] == ["newest", "oldest", "slowest", "fastest"]
    assert asked["filter"]["description"]
    assert "experiment" in asked
    answers = document["paths"]["/traces/{trace_id}.json"]["get"]["responses"]
    assert answers.keys() == {"200", "400", "401", "403", "404", "405", "501", "503", "504"}
    assert answers["200"]["content"]["application/json"]["schema"]["$ref"].endswith("/TraceView")
    assert answers["404"]["content"]["application/json"]["schema"]["$ref"].endswith("/Failure")
    picture = document["paths"]["/compare.svg"]["get"]["responses"]["200"]
    assert list(picture["content"]) == ["image/svg+xml"]


async def test_the_document_names_where_it_is_mounted(store: Store) -> None:
    """As its server; and the two ways to send a token, where there is one."""
    page = make_application(store, Access("secret"))
    app = Starlette(routes=[Mount("/ops/wherefrom", page)])
    async with asking(app, headers={"authorization": "Bearer secret"}) as client:
        document = (await client.get("/ops/wherefrom/openapi.json")).json()
    assert document["servers"] == [{"url": "/ops/wherefrom"}]
    ways = document["components"]["securitySchemes"].values()
    assert {one["type"] for one in ways} == {"http", "apiKey"}
    assert len(document["paths"]["/traces.json"]["get"]["security"]) == 2
