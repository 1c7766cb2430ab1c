"""What the two encodings of OTLP over HTTP have in common."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Generic

from .. import keys
from ..exceptions import InvalidTraceError
from ..model import Span, SpanStatusCode, TraceInfo
from . import facts
from .table import Encoded, Table

SCOPE_NAME: Final = "wherefrom"
PART: Final = 64
CONTAINERS: Final = frozenset({dict, list, tuple})
# trace.proto, enum StatusCode
STATUS_CODES: Final = {SpanStatusCode.UNSET: 0, SpanStatusCode.OK: 1, SpanStatusCode.ERROR: 2}

_UNKNOWN: Final = "UNKNOWN"
_TRACE_ID: Final = re.compile(r"[0-9a-fA-F]{32}")
_SPAN_ID: Final = re.compile(r"[0-9a-fA-F]{16}")


class Encoding(ABC, Generic[Encoded]):
    """Makes spans and requests.

    ``strings`` and ``integers`` are ``KeyValue`` messages that hold such values. ``for_mlflow``: the trace's
    name is a tag, and the span's type an attribute also where its kind says the same.
    """

    content_type: str
    strings: Table[Encoded]
    integers: Table[Encoded]

    def __init__(self, strings: Table[Encoded], integers: Table[Encoded], *, for_mlflow: bool) -> None:
        self.strings = strings
        self.integers = integers
        self._for_mlflow = for_mlflow

    @abstractmethod
    def attribute(self, key: str, value: Any) -> Encoded:
        """A ``KeyValue`` of any value; what OTLP has no form for is kept as JSON text."""

    @abstractmethod
    def span(self, span: Span, end_time_ns: int, flags: int, attributes: list[Encoded]) -> Encoded:
        """A ``Span``; ``attributes`` are those of its trace if it is the root, and gain its own.

        Raises:
            InvalidTraceError: its ids are not those of W3C Trace Context.
        """

    @abstractmethod
    def resource(self, attributes: Mapping[str, Any]) -> Encoded:
        """What comes before the spans of one resource."""

    @abstractmethod
    def request(self, groups: Iterable[tuple[Encoded, Sequence[Encoded]]]) -> Iterator[bytes]:
        """An ``ExportTraceServiceRequest`` of resources and their spans, in parts of some 64 spans.

        Parts that are compressed or sent one by one stay in the cache; a megabyte in one piece would not.
        """

    def attributes(self, pairs: Mapping[str, Any], into: list[Encoded] | None = None) -> list[Encoded]:
        """A ``KeyValue`` of each pair, put at the end of ``into``."""
        encoded: list[Encoded] = [] if into is None else into
        strings, before = self.strings, len(encoded)
        try:
            for key, value in pairs.items():  # a comprehension costs 0.2 µs more (Python 3.11)
                if type(value) is str:
                    encoded.append(strings[key][value])
                elif type(value) is int:
                    encoded.append(self.integers[key][value])
                else:
                    encoded.append(self.attribute(key, value))
        except RecursionError:
            raise
        except RuntimeError:  # the app sets another one just now
            del encoded[before:]
            return self.attributes(dict(pairs), encoded)
        return encoded

    def trace_attributes(
        self, info: TraceInfo, source: dict[str, str], own: Mapping[str, Any]
    ) -> list[Encoded]:
        """What a trace knows beyond its process, for its root span.

        ``own`` are the attributes that the root has: no key may come twice (common.proto), and they win.
        """
        strings = self.strings
        encoded: list[Encoded] = []
        if (request_id := info.client_request_id) is not None and facts.REQUEST_ID not in own:
            encoded.append(strings[facts.REQUEST_ID].encode(request_id))
        # Most traces have these beyond their source, and no more: then one comparison of dicts, mostly of the
        # very same objects, does for a loop.
        metadata = info.trace_metadata.copy()
        for key, name in facts.OFTEN_OWN:
            value = metadata.pop(key, None)
            if value is not None and name not in own:
                encoded.append(strings[name][value])
        if metadata != source or self._for_mlflow or len(info.tags) > 1:
            more = facts.more_attributes(metadata, source, info.tags, for_mlflow=self._for_mlflow)
            self.attributes({key: value for key, value in more.items() if key not in own}, encoded)
        return encoded

    def mlflow_attributes(self, span: Span, kind: int) -> list[Encoded]:
        """A span's type, inputs and outputs, as MLflow calls them."""
        encoded: list[Encoded] = []
        own, span_type = span.attributes, span.span_type
        told = kind != facts.INTERNAL and not self._for_mlflow
        if span_type != _UNKNOWN and not told and keys.SPAN_TYPE not in own:
            encoded.append(self.strings[keys.SPAN_TYPE][span_type])
        if span.inputs is not None and keys.SPAN_INPUTS not in own:
            encoded.append(self.attribute(keys.SPAN_INPUTS, span.inputs))
        if span.outputs is not None and keys.SPAN_OUTPUTS not in own:
            encoded.append(self.attribute(keys.SPAN_OUTPUTS, span.outputs))
        return encoded


def check_ids(span: Span, trace_id: str) -> None:
    """Refuse a span with ids that OTLP cannot carry.

    Raises:
        InvalidTraceError: one of them is not an id of W3C Trace Context.
    """
    parent_id = span.parent_id
    if not (
        _TRACE_ID.fullmatch(trace_id)
        and _SPAN_ID.fullmatch(span.span_id)
        and (not parent_id or _SPAN_ID.fullmatch(parent_id))
    ):
        raise InvalidTraceError(f"ids of span {span.name!r} are not those of W3C Trace Context")


def usable_links(span: Span) -> tuple[list[tuple[str, str, dict[str, Any]]], int]:
    """Trace id, span id and attributes of each link, and how many links have ids that cannot be sent."""
    links = []
    for link in span.links:
        trace_id = str(link.get("trace_id", "")).removeprefix("tr-")
        span_id = str(link.get("span_id", ""))
        if _TRACE_ID.fullmatch(trace_id) and _SPAN_ID.fullmatch(span_id):
            links.append((trace_id, span_id, link.get("attributes") or {}))
    return links, len(span.links) - len(links)
