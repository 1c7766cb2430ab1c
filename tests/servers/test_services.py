"""Services in processes of their own that call each other and share a store, on each store."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.engines import NewUrl
from wherefrom import keys
from wherefrom.client import TraceClient
from wherefrom.model import Trace
from wherefrom.model.parts import services_of
from wherefrom.stores import open_store

from .processes import Server, running, start

SERVICES = ("bank", "cart", "shop")
REQUESTS = [f"r-{number}" for number in range(12)]


def start_all(url: str, folder: Path) -> list[Server]:
    servers: list[Server] = []
    for name in SERVICES:
        environ = {
            "WHEREFROM_STORE": url,
            "WHEREFROM_UPSTREAM": "continue",
            "WHEREFROM_EXPERIMENT": f"of {name}",
            "WHEREFROM_FLUSH_INTERVAL_MS": "20",
            "WHEREFROM_SHUTDOWN_TIMEOUT": "60",
            "APP_VERSION": f"{name} 1",
            "NEXT": f"http://127.0.0.1:{servers[-1].port}" if servers else "",
        }
        servers.append(start(folder / name, "uvicorn", app=f"services:{name}", environ=environ))
    return servers


def path_of(trace: Trace) -> list[tuple[str, str]]:
    """The name and the service of each span, from the root down; each has one child at most."""
    services = services_of(trace)
    below = {span.parent_id: span for span in trace.data.spans}
    assert len(below) == len(trace.data.spans)
    found, place = [], None
    while (span := below.get(place)) is not None:
        found.append((span.name, services[span.span_id][keys.APP_VERSION]))
        place = span.span_id
    return found


async def test_three_services_are_one_trace(new_url: NewUrl, tmp_path: Path) -> None:
    """Its tree is whole, each span has its service, and the first service tells what it was."""
    url = new_url()
    servers = start_all(url, tmp_path)
    with running(*servers, patience=400):
        answers = await asyncio.gather(
            *(servers[-1].get("/buy", {"X-Request-ID": name, "X-User-ID": "ann"}) for name in REQUESTS)
        )
        assert {answer.status for answer in answers} == {200}
    store = open_store(url)
    traces = TraceClient(store).search_traces(max_results=100)
    assert sorted(str(trace.info.client_request_id) for trace in traces) == sorted(REQUESTS)
    for trace in traces:
        assert path_of(trace) == [
            ("GET /buy", "shop 1"),
            ("GET", "shop 1"),
            ("GET /items", "cart 1"),
            ("GET", "cart 1"),
            ("GET /pay", "bank 1"),
        ]
        info = trace.info
        assert (info.experiment, info.state.value, info.name) == ("of shop", "OK", "GET /buy")
        assert (info.trace_metadata[keys.APP_VERSION], info.trace_metadata[keys.USER]) == ("shop 1", "ann")
        assert not {"cart", keys.PART} & info.trace_metadata.keys()
        assert "of" not in info.tags
    store.close()
    new_url.release(url)
