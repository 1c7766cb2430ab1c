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
    error: BaseException, code: int | None = None, refused: Sequence[BaseException] = (), *, depth: int = 0
) -> bool:
    """Whether an exception only means that a connection has ended. Call it only after the end.

    ``code`` is the close code that the app of a websocket received; frameworks store it in ``code`` of their
    exception. ``refused`` are the exceptions that the server's ``send`` raised. The result is false for a
    bug in the handling of a disconnect, such as a ``KeyError``, and for a group with any other exception.
    """
    return depth < _MAX_DEPTH and all(_says_so(leaf, code, refused, depth) for leaf in _leaves(error))


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


def _says_so(error: BaseException, code: int | None, refused: Sequence[BaseException], depth: int) -> bool:
    if any(error is each for each in refused) or is_cancellation(error) or _is_named(error, code):
        return True
    cause = error.__cause__
    if cause is None and not error.__suppress_context__ and _may_follow(error):
        cause = error.__context__
    return cause is not None and is_disconnect(cause, code, refused, depth=depth + 1)


def _is_named(error: BaseException, code: int | None) -> bool:
    own = getattr(error, "code", None)
    if isinstance(own, int):
        return own == code
    return any(kind.__name__ in _NAMES for kind in type(error).__mro__)


def _may_follow(error: BaseException) -> bool:
    """Whether the handling of a disconnect may raise this exception without being a bug."""
    return isinstance(error, _MAY_FOLLOW) or type(error).__module__ != "builtins"
