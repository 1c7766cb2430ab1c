"""Whom to believe: networks, a predicate, and what a stranger says of itself."""

from __future__ import annotations

from typing import Any

import pytest

from wherefrom import MemorySink, Settings
from wherefrom.exceptions import SettingsError
from wherefrom.process import ledger

from ..integrations.apps import within_a_request

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
HEADERS = {
    "traceparent": f"00-{TRACE}-{SPAN}-00",
    "X-Session-ID": "s1",
    "X-User-ID": "u1",
    "X-Tenant-ID": "t1",
    "X-Request-ID": "r1",
}


async def nothing() -> None:
    """A handler that has no more to do."""


async def test_a_predicate_sees_the_whole_scope(sink: MemorySink) -> None:
    """``trust_upstream`` may be a function: of the path, a header, a certificate."""

    def trusts(scope: Any) -> bool:
        return (b"x-mesh", b"yes") in scope["headers"]

    for extra in ({"X-Mesh": "yes"}, {}):
        headers = HEADERS | {"traceparent": f"00-{TRACE}-{SPAN}-01"} | extra
        await within_a_request(nothing, sink, headers=headers, upstream="continue", trust_upstream=trusts)
    assert [trace.data.spans[0].parent_id for trace in sink.traces] == [SPAN, None]


async def test_a_predicate_that_raises_trusts_nobody(sink: MemorySink) -> None:
    """The request is answered and traced, its caller linked, the failure counted."""

    def trusts(_scope: Any) -> bool:
        raise RuntimeError("a bug")

    trace = await within_a_request(nothing, sink, headers=HEADERS, upstream="continue", trust_upstream=trusts)
    assert trace.data.spans[0].links
    assert ledger.read().errors == {"trust_upstream": 1}


@pytest.mark.parametrize("upstream", ["link", "continue", "ignore"])
@pytest.mark.parametrize(("peer", "believed"), [("10.1.2.3", True), ("192.0.2.1", False)])
async def test_what_strangers_say_of_themselves_can_be_left_out(
    sink: MemorySink, upstream: str, peer: str, believed: bool
) -> None:
    """``trust_headers=upstream`` records session, user and other metadata of trusted callers alone.

    What is left out is counted; the request id, which names nobody, is taken from everyone.
    """
    trace = await within_a_request(
        nothing,
        sink,
        headers=HEADERS | {"traceparent": f"00-{TRACE}-{SPAN}-01"},
        peer=peer,
        upstream=upstream,
        trust_upstream="10.0.0.0/8",
        trust_headers="upstream",
        header_metadata={"X-Tenant-ID": "tenant"},
    )
    metadata = trace.info.trace_metadata
    said = [metadata.get(key) for key in ("mlflow.trace.session", "mlflow.trace.user", "tenant")]
    assert said == (["s1", "u1", "t1"] if believed else [None] * 3)
    assert trace.info.client_request_id == "r1"
    refused = {"x-session-id": 1, "x-user-id": 1, "x-tenant-id": 1}
    assert ledger.read().refused_headers == ({} if believed else refused)


async def test_a_stranger_decides_no_sampling(sink: MemorySink) -> None:
    """Whoever is not joined can neither keep a trace nor hide one."""
    rules: dict[str, Any] = {
        "upstream": "continue",
        "trust_upstream": "10.0.0.0/8",
        "peer": "192.0.2.1",
        "keep_errors": False,
    }
    await within_a_request(nothing, sink, headers=HEADERS, **rules)
    assert len(sink.traces) == 1
    forced = HEADERS | {"traceparent": f"00-{TRACE}-{SPAN}-01"}
    await within_a_request(nothing, sink, headers=forced, sample_rate=0, **rules)
    assert len(sink.traces) == 1


@pytest.mark.parametrize("headers", ["all", "upstream"])
async def test_without_networks_all_are_trusted(sink: MemorySink, headers: str) -> None:
    """A blank ``trust_upstream`` trusts every caller, in this as in the other."""
    trace = await within_a_request(nothing, sink, headers=HEADERS, trust_headers=headers)
    assert trace.info.trace_metadata["mlflow.trace.user"] == "u1"


@pytest.mark.parametrize("value", ["10.0.0.0/99", ["10.0.0.1", "x"], 5, [5]])
def test_what_is_neither_network_nor_predicate(value: Any) -> None:
    """One sentence says what the setting takes."""
    with pytest.raises(
        SettingsError, match=r"^WHEREFROM_TRUST_UPSTREAM=.* cannot be used: it takes a comma list of"
    ):
        Settings(trust_upstream=value)


def test_networks_are_a_comma_list_or_a_sequence(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the environment a comma list; in code also a list."""
    monkeypatch.setenv("WHEREFROM_TRUST_UPSTREAM", "10.0.0.0/8, ::1")
    assert Settings().trust_upstream == ("10.0.0.0/8", "::1")
    assert Settings(trust_upstream=["10.0.0.0/8", "::1"]).trust_upstream == ("10.0.0.0/8", "::1")
