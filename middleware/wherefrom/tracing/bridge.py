"""What keeps another tracer of the same process inside our request."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from importlib import import_module
from types import TracebackType
from typing import Final, Protocol, runtime_checkable

from .._types import Message, Scope, Send
from ..process import ledger
from .recorder import LiveTrace

# Each imports another tracer, so none is imported before it is asked for.
_BRIDGES: Final = {
    "opentelemetry": ("wherefrom.otel", "OpenTelemetryBridge"),
    "mlflow": ("wherefrom.mlflow", "MLflowBridge"),
}

_TELLING: Final = frozenset(
    {
        "http.response.body",
        "http.response.pathsend",
        "http.response.trailers",
        "http.response.zerocopysend",
        "websocket.accept",
        "websocket.close",
        "websocket.http.response.body",
    }
)


class Bridge(Protocol):
    """Ties another tracer to our requests."""

    def request(self, trace: LiveTrace, scope: Scope) -> AbstractContextManager[object]:
        """A block around the app's part of one request, entered in the request's own context.

        What the block gives (``as``), when callable, is called each time that a message which may be the
        last one is about to go out, and when a websocket is accepted.
        """


@runtime_checkable
class FlushingBridge(Bridge, Protocol):
    """One whose tracer holds back what it has recorded."""

    def flush(self, timeout: float) -> object:
        """Have everything sent, waiting at most ``timeout`` seconds: the server is about to stop."""


def open_bridges(names: Iterable[str]) -> tuple[Bridge, ...]:
    """The bridges of the setting ``bridges``.

    Raises:
        MissingExtraError: one of them needs a package that is not there.
    """
    # In the order of the table, whatever that of the setting: MLflow's is inside of OpenTelemetry's.
    found = (_BRIDGES[name] for name in _BRIDGES if name in set(names))
    return tuple(getattr(import_module(module), attribute)() for module, attribute in found)


@contextmanager
def bridged(bridges: Sequence[Bridge], trace: LiveTrace, scope: Scope, send: Send) -> Iterator[Send]:
    """All bridges around one request, and the ``send`` for its app.

    One that fails is counted, and neither app nor client notices.
    """
    with ExitStack() as stack:
        listeners: list[tuple[Callable[[], object], str]] = []
        for bridge in bridges:
            name = type(bridge).__name__
            try:
                block = bridge.request(trace, scope)
                given = block.__enter__()
            except Exception as error:  # noqa: BLE001 - another tracer's trouble
                ledger.failed(name, error)
            else:
                stack.push(_leaving(block, name))
                if callable(given):
                    listeners.append((given, name))
        yield _announcing(send, listeners) if listeners else send


def flush_bridges(bridges: Sequence[Bridge], timeout: float) -> None:
    """Have what other tracers hold back sent, within ``timeout`` seconds together."""
    deadline = time.monotonic() + timeout
    for bridge in bridges:
        if isinstance(bridge, FlushingBridge):
            try:
                bridge.flush(max(deadline - time.monotonic(), 0))
            except Exception as error:  # noqa: BLE001 - another tracer's trouble
                ledger.failed(type(bridge).__name__, error)


def _announcing(send: Send, listeners: Sequence[tuple[Callable[[], object], str]]) -> Send:
    async def announce(message: Message) -> None:
        if message["type"] in _TELLING and not message.get("more_body") and not message.get("more_trailers"):
            for listener, name in listeners:
                try:
                    listener()
                except Exception as error:  # noqa: BLE001 - another tracer's trouble
                    ledger.failed(name, error)
        await send(message)

    return announce


_Exit = Callable[[type[BaseException] | None, BaseException | None, TracebackType | None], bool]


def _leaving(block: AbstractContextManager[object], name: str) -> _Exit:
    def leave(
        kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        try:
            block.__exit__(kind, error, traceback)
        except Exception as failure:  # noqa: BLE001 - another tracer's trouble
            ledger.failed(name, failure)
        return False

    return leave
