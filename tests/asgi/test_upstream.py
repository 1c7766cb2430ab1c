"""The caller's trace context: linked, joined from trusted networks, or ignored."""

from __future__ import annotations

from typing import Any

import pytest

from wherefrom import MemorySink

from .raw import http_scope, ok, only, root_of, serve, traced

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def called(flags: str = "01", **scope: Any) -> dict[str, Any]:
    return http_scope(headers=[(b"traceparent", f"00-{TRACE}-{SPAN}-{flags}".encode())], **scope)


async def test_by_default_it_is_a_link(sink: MemorySink) -> None:
    """Anyone can send a traceparent: the trace is our own, with a link to the caller's."""
    await serve(traced(ok, sink), called())
    root = root_of(sink)
    assert root.trace_id != f"tr-{TRACE}"
    assert root.parent_id is None
    assert root.links == [{"trace_id": f"tr-{TRACE}", "span_id": SPAN, "attributes": {}}]


async def test_it_can_be_continued(sink: MemorySink) -> None:
    """``upstream=continue`` joins the caller's trace below its span."""
    await serve(traced(ok, sink, upstream="continue"), called())
    root = root_of(sink)
    assert (root.trace_id, root.parent_id, root.links) == (f"tr-{TRACE}", SPAN, [])
    assert only(sink).info.trace_id == f"tr-{TRACE}"
    assert only(sink).root is root


async def test_it_can_be_ignored(sink: MemorySink) -> None:
    """``upstream=ignore`` keeps nothing of it."""
    await serve(traced(ok, sink, upstream="ignore"), called())
    assert (root_of(sink).parent_id, root_of(sink).links) == (None, [])


@pytest.mark.parametrize(
    ("client", "joined"),
    [(("10.1.2.3", 1), True), (("::ffff:10.1.2.3", 1), True), (("192.0.2.1", 1), False), (None, False)],
)
async def test_only_trusted_networks_are_joined(sink: MemorySink, client: Any, joined: bool) -> None:
    """With ``trust_upstream`` the callers of other networks are links."""
    middleware = traced(ok, sink, upstream="continue", trust_upstream="10.0.0.0/8")
    await serve(middleware, called(client=client))
    assert (root_of(sink).parent_id == SPAN) is joined
    assert bool(root_of(sink).links) is not joined


@pytest.mark.parametrize("mode", ["link", "continue"])
async def test_garbage_is_nothing(sink: MemorySink, mode: str) -> None:
    """A traceparent that cannot be read is as none."""
    await serve(traced(ok, sink, upstream=mode), http_scope(headers=[(b"traceparent", b"\xff\\")]))
    assert (root_of(sink).parent_id, root_of(sink).links) == (None, [])


async def test_the_caller_s_decision_is_kept(sink: MemorySink) -> None:
    """A joined trace is kept when the caller keeps it, whatever our rate; a linked one is ours to decide."""
    joining = traced(ok, sink, upstream="continue", sample_rate=0)
    await serve(joining, called("01"))
    await serve(traced(ok, sink, upstream="continue"), called("00"))
    await serve(traced(ok, sink, sample_rate=0), called("01"))
    assert len(sink.traces) == 1
    assert only(sink).info.trace_id == f"tr-{TRACE}"
