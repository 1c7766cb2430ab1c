"""GenAI events that instrumentors send as log records: they become events of the span that they belong to."""

from __future__ import annotations

from typing import Any, Final

from opentelemetry import _logs as logs
from opentelemetry._logs._internal import ProxyLoggerProvider
from opentelemetry.sdk._logs import LoggerProvider, LogRecordProcessor

from ..process import ledger, process
from .session import BroughtSpan

_PREFIX: Final = "gen_ai."
_HEARD: Final = "wherefrom_receives_events"


class GenAIEventProcessor(LogRecordProcessor):
    """Adds log records whose event name begins with ``gen_ai.`` to their span, which has not ended.

    Their body is the attribute ``body``. Other log records are ignored.
    """

    def on_emit(self, log_record: Any) -> None:
        """Add one log record."""
        try:
            record = getattr(log_record, "log_record", log_record)
            name = getattr(record, "event_name", None) or (record.attributes or {}).get("event.name")
            if not isinstance(name, str) or not name.startswith(_PREFIX):
                return
            span = process.bridged_spans.get(f"{record.span_id or 0:016x}")
            if isinstance(span, BroughtSpan) and span.recorded and span.end_time_ns is None:
                attributes = dict(record.attributes or {})
                if record.body is not None:
                    attributes["body"] = record.body
                span.add_event(name, attributes, record.timestamp or record.observed_timestamp)
        except Exception as error:  # noqa: BLE001 - the app goes on
            ledger.failed("opentelemetry", error)

    emit = on_emit  # its name in older versions of the SDK

    def shutdown(self) -> None:
        """Do nothing: nothing is buffered here."""

    def force_flush(self, timeout_millis: int = 30_000) -> bool:  # noqa: ARG002
        """Do nothing: nothing is buffered here."""
        return True


def receive_events() -> None:
    """Receive the log records of the global logger provider: that of the app, or a minimal one."""
    provider = logs.get_logger_provider()
    if isinstance(provider, ProxyLoggerProvider):
        logs.set_logger_provider(LoggerProvider(shutdown_on_exit=False))
        provider = logs.get_logger_provider()
    if isinstance(provider, LoggerProvider) and not hasattr(provider, _HEARD):
        setattr(provider, _HEARD, True)
        provider.add_log_record_processor(GenAIEventProcessor())
