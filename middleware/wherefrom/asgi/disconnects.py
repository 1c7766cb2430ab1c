"""Recognizes exceptions that only mean that the connection has ended.

The app sees a disconnect of the client as an exception of its framework, as one of the server's ``send``, or
as a cancellation. It may be in an exception group, or be the cause or context of another exception.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

# Names, because none of these is imported: Starlette, FastAPI, Litestar, Falcon, BlackSheep and the servers.
_NAMES: Final = frozenset(
    {
        "ClientDisconnect",
        "ClientDisconnected",
        "WebSocketDisconnect",
        "WebSocketDisconnected",
        "WebSocketDisconnectedError",
        "WebSocketDisconnectError",
    }
)
# Frameworks and servers raise these if a closed connection is used; other built-in exceptions are bugs.
_MAY_FOLLOW: Final = (RuntimeError, OSError)
_MAX_DEPTH: Final = 20  # the app makes the chains, and they may have a cycle


def is_disconnect(
    error: BaseException, code: int | None = None, refused: Sequence[BaseException] = ()
) -> bool:
    """Whether an exception only means that a connection has ended. Call it only after the end.

    ``code`` is the close code that the app of a websocket received; frameworks store it in ``code`` of their
    exception. ``refused`` are the exceptions that the server's ``send`` raised. The result is false for a
    bug in the handling of a disconnect, such as a ``KeyError``, and for a group with any other exception.
    """
    return _Question(code, refused).all_say_so(error, 0)


def is_cancellation(error: BaseException) -> bool:
    """Whether it is a cancellation by asyncio or trio, or the close of a coroutine."""
    return not any(isinstance(leaf, (Exception, KeyboardInterrupt, SystemExit)) for leaf in _leaves(error))


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """Yield the exceptions of a group, whatever its depth, or the exception itself."""
    waiting = [error]
    while waiting:
        current = waiting.pop()
        if isinstance(current, BaseExceptionGroup):
            waiting += current.exceptions
        else:
            yield current


class _Question:
    """Whether exceptions mean that a connection has ended; each is examined once, whoever refers to it."""

    def __init__(self, code: int | None, refused: Sequence[BaseException]) -> None:
        self._code = code
        self._refused = refused
        self._known: dict[int, bool] = {}

    def all_say_so(self, error: BaseException, depth: int) -> bool:
        return depth < _MAX_DEPTH and all(self._says_so(leaf, depth) for leaf in _leaves(error))

    def _says_so(self, error: BaseException, depth: int) -> bool:
        known = self._known
        if id(error) not in known:
            known[id(error)] = False  # where a chain has a cycle
            known[id(error)] = self._examine(error, depth)
        return known[id(error)]

    def _examine(self, error: BaseException, depth: int) -> bool:
        if any(error is each for each in self._refused) or is_cancellation(error):
            return True
        if _is_named(error, self._code):
            return True
        cause = error.__cause__
        if cause is None and not error.__suppress_context__ and _may_follow(error):
            cause = error.__context__
        return cause is not None and self.all_say_so(cause, depth + 1)


def _is_named(error: BaseException, code: int | None) -> bool:
    own = getattr(error, "code", None)
    if isinstance(own, int):
        return own == code
    return any(kind.__name__ in _NAMES for kind in type(error).__mro__)


def _may_follow(error: BaseException) -> bool:
    """Whether the handling of a disconnect may raise this exception without being a bug."""
    return isinstance(error, _MAY_FOLLOW) or type(error).__module__ != "builtins"
