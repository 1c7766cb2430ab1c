"""Queries in few threads, with a deadline, for clients that wait: the app around keeps its own threads."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from math import ceil
from typing import Final, TypeVar

import anyio
from anyio import CapacityLimiter, to_thread
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..stores.deadline import Deadline

# Reading keeps a processor busy, and the interpreter's lock with it.
MOST_RUNNING: Final = 4

_Found = TypeVar("_Found")


class BusyError(Exception):
    """A request that is refused because too many run or wait; ``retry_after`` is in seconds."""

    def __init__(self, retry_after: int) -> None:
        super().__init__("too many queries run and wait at the moment: try again in a few seconds")
        self.retry_after = retry_after


class QueryPool:
    """Runs the queries of an application in threads of its own, of which there are few.

    ``running`` queries run at once and ``waiting`` requests more are admitted. Each query may take
    ``seconds``, the time in which it waits for its turn not counted.
    """

    def __init__(self, *, seconds: float, running: int = MOST_RUNNING, waiting: int = 16) -> None:
        self._seconds = seconds
        self._threads = CapacityLimiter(running)
        self._most_admitted = running + waiting
        self._admitted = 0

    @property
    def running(self) -> int:
        """How many queries run now."""
        return self._threads.borrowed_tokens

    @property
    def admitted(self) -> int:
        """How many requests run queries or wait."""
        return self._admitted

    def answer(self, make: Callable[[Queries], Awaitable[Response]]) -> ASGIApp:
        """The response that ``make`` makes, if there is room; its queries end when the client leaves.

        The body of the request has been read by then, if it has one.

        Raises:
            BusyError: there is no room. Raised when the response is called.
        """

        async def respond(scope: Scope, receive: Receive, send: Send) -> None:
            with self._admit() as queries:
                await _answer(queries, make, scope, receive, send)

        return respond

    @contextmanager
    def _admit(self) -> Iterator[Queries]:
        if self._admitted >= self._most_admitted:
            raise BusyError(retry_after=ceil(self._seconds))
        self._admitted += 1
        try:
            yield Queries(self._threads, self._seconds)
        finally:
            self._admitted -= 1


class Queries:
    """The queries of one request."""

    def __init__(self, threads: CapacityLimiter, seconds: float) -> None:
        self._threads = threads
        self._seconds = seconds
        self._deadline: Deadline | None = None
        self._is_cancelled = False

    async def run(self, function: Callable[[], _Found]) -> _Found:
        """Call the function in a thread of the pool."""
        return await to_thread.run_sync(function, limiter=self._threads)

    async def query(self, function: Callable[[], _Found]) -> _Found:
        """Call the function in a thread of the pool, with a deadline."""
        return await self.run(lambda: self.within_time(function))

    def within_time(self, function: Callable[[], _Found]) -> _Found:
        """Call the function with a deadline of its own.

        Raises:
            QueryTimeoutError: it took too long.
            QueryCancelledError: the client has left.
        """
        deadline = self._deadline = Deadline(self._seconds)
        if self._is_cancelled:
            deadline.cancel()
        with deadline:
            return function()

    def cancel(self) -> None:
        """End the query that runs; later ones fail at once."""
        self._is_cancelled = True
        if self._deadline is not None:
            self._deadline.cancel()


async def _answer(
    queries: Queries,
    make: Callable[[Queries], Awaitable[Response]],
    scope: Scope,
    receive: Receive,
    send: Send,
) -> None:
    left = anyio.Event()
    is_started = False
    failure: Exception | None = None

    async def wait_for_leaving() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        left.set()
        queries.cancel()
        tasks.cancel_scope.cancel()

    async def receive_leaving() -> Message:
        await left.wait()
        return {"type": "http.disconnect"}

    async def send_and_note(message: Message) -> None:
        nonlocal is_started
        is_started = True
        await send(message)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait_for_leaving)
        try:
            response = await make(queries)
            await response(scope, receive_leaving, send_and_note)
        except Exception as error:  # noqa: BLE001 # raised below: a task group would wrap it in another
            failure = error
        tasks.cancel_scope.cancel()
    if left.is_set():
        if not is_started:
            await Response(status_code=503)(scope, receive_leaving, send)  # middleware around expects one
    elif failure is not None:
        raise failure
