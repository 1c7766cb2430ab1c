"""What a collector answers, in whichever encoding it likes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

import orjson

from ..values import cut
from .protobuf import read_fields

_MAX_MESSAGE: Final = 300
_MESSAGE_KEYS: Final = ("message", "detail", "error", "errorMessage", "error_message", "description")


@dataclass(frozen=True, slots=True)
class PartialSuccess:
    """``ExportTracePartialSuccess``: how many spans were not taken, and why; a reason alone is a warning."""

    rejected_spans: int = 0
    message: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP response. ``retry_after`` is that header's value; ``body`` is at most 64 KiB of it."""

    status: int
    content_type: str = ""
    retry_after: str | None = None
    body: bytes = b""

    def partial_success(self) -> PartialSuccess:
        """``ExportTraceServiceResponse.partial_success``; empty when there is none to be read."""
        try:
            if "protobuf" in self.content_type:
                return _partial_success_of_protobuf(self.body)
            data = orjson.loads(self.body) if self.body else {}
            partial = data.get("partialSuccess") or data.get("partial_success") or {}
            rejected = partial.get("rejectedSpans") or partial.get("rejected_spans") or 0
            message = partial.get("errorMessage") or partial.get("error_message") or ""
            return PartialSuccess(max(int(rejected), 0), _clean(str(message)))
        except (ValueError, TypeError, AttributeError):
            return PartialSuccess()

    def message(self) -> str:
        """What the collector says of an error: ``google.rpc.Status.message``, or what the body has."""
        try:
            if "protobuf" in self.content_type:
                return _clean(_decode(read_fields(self.body).get(2, b"")))
            if "json" in self.content_type:
                return _clean(_message_in(orjson.loads(self.body)))
        except ValueError:
            pass
        return _clean(_decode(self.body))

    def pause(self, now: datetime | None = None) -> float | None:
        """Seconds that ``Retry-After`` asks for, as a number or a date (RFC 9110, section 10.2.3)."""
        value = (self.retry_after or "").strip()
        if value.isascii() and value.isdigit():
            return float(value[:9])
        try:
            moment = parsedate_to_datetime(value)
        except (ValueError, TypeError, IndexError):
            return None
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return max((moment - (now or datetime.now(UTC))).total_seconds(), 0.0)


def _partial_success_of_protobuf(body: bytes) -> PartialSuccess:
    partial = read_fields(body).get(1, b"")
    fields = read_fields(partial) if isinstance(partial, bytes) else {}
    rejected, message = fields.get(1, 0), fields.get(2, b"")
    count = rejected if isinstance(rejected, int) and rejected < 1 << 63 else 0  # else it is negative
    return PartialSuccess(count, _clean(_decode(message)))


def _message_in(data: Any) -> str:
    if isinstance(data, Mapping):
        found = next((data[key] for key in _MESSAGE_KEYS if data.get(key)), None)
        return _message_in(found) if found is not None else orjson.dumps(data).decode()
    return data if isinstance(data, str) else orjson.dumps(data).decode()


def _decode(data: int | bytes) -> str:
    return data.decode(errors="replace") if isinstance(data, bytes) else ""


def _clean(text: str) -> str:
    """One line that cannot break the log."""
    words = "".join([char if char.isprintable() else " " for char in text[: _MAX_MESSAGE * 4]]).split()
    return cut(" ".join(words), _MAX_MESSAGE)
