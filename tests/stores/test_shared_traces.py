"""Services that share a store and continue each other's traces: one trace, whoever writes it first."""

from __future__ import annotations

from itertools import permutations

from tests.engines import NewUrl
from wherefrom import keys
from wherefrom.client import TraceClient
from wherefrom.model import Source, Span, SpanStatus, SpanStatusCode, Trace, TraceData, TraceInfo, TraceState
from wherefrom.model.parts import mark_part, services_of
from wherefrom.stores import Selection, Store, open_store

NOON = 1_790_000_000_000
"""The start of the trace, in ms since the epoch."""


class Shop:
    """One trace of three services: ``shop`` calls ``cart``, which calls ``bank``; ``bank`` fails."""

    def __init__(self, number: int) -> None:
        self.trace_id = f"tr-{number:032x}"
        self.shop = self._record("shop", None, NOON, 900, session="s", tags={"tier": "gold"})
        call = self._child(self.shop, "c1")
        self.cart = self._record("cart", call.span_id, NOON + 1, 500, user="u", tags={"cart": "1"})
        call = self._child(self.cart, "c2")
        self.bank = self._record("bank", call.span_id, NOON + 2, 100, state=TraceState.ERROR)
        # Ends after the trace of its service.
        self.late = Trace(self.cart.info, TraceData([self._child(self.cart, "c3")]))
        self.cart.data.spans.pop()

    def _record(
        self,
        service: str,
        parent_id: str | None,
        at: int,
        took: int,
        *,
        state: TraceState = TraceState.OK,
        session: str | None = None,
        user: str | None = None,
        tags: dict[str, str] | None = None,
    ) -> Trace:
        source = Source({keys.SOURCE_NAME: f"{service}:app", keys.APP_VERSION: f"{service} 1"})
        of_request = {keys.SESSION: session, keys.USER: user, keys.INSTANCE_ID: f"{service}0", service: "yes"}
        info = TraceInfo(
            self.trace_id,
            f"of {service}",
            at,
            took,
            state,
            client_request_id=f"asked {service}",
            request_preview=f"to {service}",
            trace_metadata={**source, **{k: v for k, v in of_request.items() if v is not None}},
            tags={keys.TRACE_NAME_TAG: f"GET /{service}", **(tags or {})},
            source=source,
        )
        failed = state is TraceState.ERROR
        status = SpanStatus(SpanStatusCode.ERROR, "no money") if failed else SpanStatus(SpanStatusCode.OK)
        root = Span(
            self.trace_id, service[:4].encode().hex() + "0" * 8, parent_id, f"GET /{service}", "SERVER"
        )
        root.start_time_ns, root.end_time_ns = at * 1_000_000, (at + took) * 1_000_000
        root.status = status
        root.attributes = {"http.response.status_code": 500 if failed else 200}
        if parent_id is not None:
            mark_part(info, root)
        return Trace(info, TraceData([root]))

    def _child(self, trace: Trace, name: str) -> Span:
        (root, *others) = trace.data.spans
        span_id = f"{root.span_id[:8]}{len(others) + 1:08x}"
        span = Span(self.trace_id, span_id, root.span_id, name, "CLIENT", root.start_time_ns + len(name))
        span.start_time_ns += 1_000 * (len(others) + 1)
        span.end_time_ns = span.start_time_ns + 1_000
        span.status = SpanStatus(SpanStatusCode.OK)
        trace.data.spans.append(span)
        return span

    def check(self, found: Trace) -> None:
        """All of the trace is there, told by ``shop``."""
        expected = self.shop.info
        assert found.info == expected
        spans = {span.span_id: span for trace in self.records for span in trace.data.spans}
        assert {span.span_id: span for span in found.data.spans} == spans
        services = services_of(found)
        assert {span.name: services[span.span_id][keys.SOURCE_NAME] for span in found.data.spans} == {
            "GET /shop": "shop:app",
            "c1": "shop:app",
            "GET /cart": "cart:app",
            "c2": "cart:app",
            "c3": "cart:app",
            "GET /bank": "bank:app",
        }
        assert services[self.bank.data.spans[0].span_id] == {
            **(self.bank.info.source or {}),
            keys.INSTANCE_ID: "bank0",
            "experiment": "of bank",
        }

    @property
    def records(self) -> tuple[Trace, ...]:
        """What is written, in the order in which it may be."""
        return self.shop, self.cart, self.bank, self.late


def orders() -> list[tuple[int, ...]]:
    """All orders of the records in which a late span comes after its trace."""
    return [order for order in permutations(range(4)) if order.index(3) > order.index(1)]


def read(store: Store, *trace_ids: str) -> list[Trace]:
    with store.snapshot() as snapshot:
        return snapshot.read(snapshot.find(trace_ids))


def test_whichever_comes_first(new_url: NewUrl) -> None:
    """The record of who began the trace wins, and all spans are there: written one by one, at once, and by
    different processes."""
    url = new_url()
    stores = [open_store(url) for _ in range(3)]
    made: list[Shop] = []
    batches: list[list[Trace]] = [[] for _ in range(4)]
    for number, order in enumerate(orders()):
        by_one, at_once = Shop(2 * number + 1), Shop(2 * number + 2)
        made += by_one, at_once
        for place, record in enumerate(order):
            batches[place].append(by_one.records[record])
        batches[3] += (at_once.records[record] for record in order)
    for batch, store in zip(batches, [*stores, stores[0]], strict=True):
        store.write(batch)
    store = stores[1]
    for shop, found in zip(made, read(store, *(shop.trace_id for shop in made)), strict=True):
        shop.check(found)
    client = TraceClient(store)
    every = {shop.trace_id for shop in made}

    def ids(text: str | None, experiment: str | None = None) -> list[str]:
        named = None if experiment is None else [experiment]
        return sorted(trace.info.trace_id for trace in client.search_traces(named, text, 100))

    told = (
        "metadata.app_version = 'shop 1'", "metadata.shop = 'yes'", f"timestamp = {NOON}", "status = 'OK'",
        "tag.tier = 'gold'", "name = 'GET /shop'", "session_id = 's'", "execution_time >= 900",
        "client_request_id = 'asked shop'", "span.name = 'GET /bank'", "http_status = 200",
    )  # fmt: skip
    assert ids(" AND ".join(told)) == sorted(every)
    others = (
        "metadata.app_version = 'cart 1'", "metadata.cart = 'yes'", f"timestamp > {NOON}", "status = 'ERROR'",
        "tag.cart = '1'", "user = 'u'", "metadata.`wherefrom.part` != ''", "http_status = 500",
    )  # fmt: skip
    assert ids(" OR ".join(others)) == []
    assert ids(None, "of shop") == sorted(every)
    assert ids(None, "of cart") == ids(None, "of bank") == []
    with store.snapshot() as snapshot:
        assert snapshot.count(Selection()) == len(made)
        (source,) = snapshot.sources(Selection())
        assert (source.traces, source.errors) == (len(made), 0)
        assert [row.http_status for row in snapshot.rows(snapshot.find(sorted(every)))] == [200] * len(made)
    for opened in stores:
        opened.close()
    new_url.release(url)


def test_until_it_comes_the_earliest_part_stands_for_it(store: Store) -> None:
    """In error if any part is; in both orders, and in one batch. Tags that are edited meanwhile stay."""
    one, other, both = Shop(1), Shop(2), Shop(3)
    store.write([one.cart, other.bank])
    store.write([one.bank, other.cart, both.bank, both.cart])
    for shop in (one, other, both):
        (found,) = read(store, shop.trace_id)
        assert found.info.state is TraceState.ERROR
        found.info.state = TraceState.OK
        assert found.info == shop.cart.info
        services = services_of(found)
        assert {services[span.span_id][keys.SOURCE_NAME] for span in found.data.spans} == {
            "cart:app",
            "bank:app",
        }
        store.set_tag(shop.trace_id, "note", "'mine'")
        store.set_tag(shop.trace_id, "tier", "iron")
        store.set_tag(shop.trace_id, "gone", "soon")
        store.delete_tag(shop.trace_id, "gone")
        store.write([shop.late, shop.shop])
        shop.shop.info.tags |= {"note": "'mine'", "tier": "iron"}
        shop.check(*read(store, shop.trace_id))


def test_the_origin_may_fail(store: Store) -> None:
    """Its error counts, whatever its parts say, and stays when it is written again."""
    for number, order in enumerate(permutations(range(3)), 1):
        shop = Shop(number)
        shop.shop.info.state = TraceState.ERROR
        for record in order:
            store.write([shop.records[record]])
        store.write([shop.late])
        assert [trace.info.state for trace in read(store, shop.trace_id)] == [TraceState.ERROR]
        assert [trace.info for trace in read(store, shop.trace_id)] == [shop.shop.info]


def test_it_is_found_by_the_spans_of_each_service(store: Store) -> None:
    """Though those of the others started at other times than the trace."""
    shops = [Shop(number) for number in range(3)]
    for record in (2, 1, 3, 0):
        store.write([shop.records[record] for shop in shops])
    client = TraceClient(store)
    for name in ("GET /shop", "GET /bank", "c3"):
        found = client.search_traces(filter_string=f"span.name = '{name}' AND span.content LIKE '%{name}%'")
        assert sorted(trace.info.trace_id for trace in found) == [shop.trace_id for shop in shops]
