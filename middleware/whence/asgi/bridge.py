"""What keeps another tracer of the same process inside our request."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from types import TracebackType
from typing import Protocol

from ..ledger import ledger
from ..recorder import LiveTrace
from .types import Scope


class Bridge(Protocol):
    """Ties another tracer to our requests."""

    def request(self, trace: LiveTrace, scope: Scope) -> AbstractContextManager[object]:
        """A block around the app's part of one request, entered in the request's own context."""


@contextmanager
def bridged(bridges: Sequence[Bridge], trace: LiveTrace, scope: Scope) -> Iterator[None]:
    """All bridges around one request; one that fails is counted, and neither app nor client notices."""
    with ExitStack() as stack:
        for bridge in bridges:
            try:
                block = bridge.request(trace, scope)
                block.__enter__()
            except Exception as error:  # noqa: BLE001 - another tracer's trouble
                ledger.failed(type(bridge).__name__, error)
            else:
                stack.push(_leaving(block, type(bridge).__name__))
        yield


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
