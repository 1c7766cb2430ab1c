"""MLflow's REST API, on a few connections kept alive."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlencode

import orjson

from ..answers import Answer
from ..connection import FAILURES, Connection
from ..endpoint import Endpoint
from ..remote import RETRYABLE, NotNowError, RefusedError, Remote, leave_to_parent

WORTH_WAITING: Final = RETRYABLE | {301, 302, 303, 307, 308, 401, 403, 404}
"""Beside what any server may answer for a while: what a wrong address, credential or experiment is answered
with. That is put right by people, and what is recorded meanwhile is worth keeping."""

NOT_FOUND: Final = 404

_LANES: Final = 4
_MAX_FAILURES: Final = 8
_MAX_ANSWER: Final = 512_000_000


def server_endpoint(url: str) -> Endpoint:
    """An MLflow server, with the prefix it may be served under.

    Raises:
        SettingsError: it is no URL of ``http`` or ``https``.
    """
    return Endpoint.parse(url, complete=False, called="the MLflow server", example="host:5000")


Outcome = NotNowError | RefusedError | None
"""What became of a request: ``None`` when it was taken."""


class MLflowAPI(Remote):
    """Asks MLflow's REST API. ``endpoint`` is the server; ``options`` are those of ``Remote``.

    Not safe for threads.
    """

    def __init__(self, endpoint: Endpoint, **options: Any) -> None:
        super().__init__(endpoint, **{"retryable": WORTH_WAITING, **options})
        self._prefix = endpoint.target.rstrip("/") + "/"
        self._lanes = self._connections()

    def _connections(self) -> list[Connection]:
        return [self.connect(max_answer=_MAX_ANSWER) for _ in range(_LANES)]

    def leave_to_parent(self) -> None:
        """In a forked child: the parent's connections are neither used nor closed."""
        for lane in self._lanes:
            leave_to_parent(lane)
        self._lanes = self._connections()

    def close(self) -> None:
        """Hang up."""
        for lane in self._lanes:
            lane.close()

    def get(self, path: str, query: Mapping[str, Any] | None = None) -> Any:
        """The JSON at a path of the server; a value of ``query`` may be a list.

        Raises:
            StoreUnavailableError: the server does not answer so now.
            RefusedError: it never will.
        """
        return self._ask("GET", path + (f"?{urlencode(query, doseq=True)}" if query else ""))

    def find(self, path: str, query: Mapping[str, Any]) -> Any:
        """The same; ``None`` where the server says that there is none."""
        answer = self._answer("GET", f"{path}?{urlencode(query, doseq=True)}")
        if answer.status == NOT_FOUND and "json" in answer.content_type:
            return None
        return self._content(answer)

    def post(self, path: str, body: Any) -> Any:
        """The JSON that a posted object is answered with. Raises what ``get`` does."""
        return self._ask("POST", path, body)

    def post_all(self, path: str, bodies: Sequence[bytes]) -> Iterator[tuple[int, Outcome]]:
        """Post JSON texts, several at a time; the place of each, and what became of it.

        When the server takes none of eight in a row, or asks to wait, those that are not on their way yet are
        neither sent nor yielded.
        """
        failures = 0
        headers = self._headers_of_post()
        idle = deque(self._lanes)
        busy: deque[tuple[int, Connection]] = deque()
        left = deque(enumerate(bodies))
        while left or busy:
            if left and idle:
                place, body = left.popleft()
                lane = idle.popleft()
                outcome: Outcome = self._begin(lane, path, headers, body)
                if outcome is None:
                    busy.append((place, lane))
                    continue
            else:
                place, lane = busy.popleft()
                outcome = self._finish(lane)
                idle.append(lane)
            yield place, outcome
            failures = failures + 1 if isinstance(outcome, NotNowError) else 0
            if failures >= _MAX_FAILURES or self.asks_to_wait:
                left.clear()

    def _begin(
        self, lane: Connection, path: str, headers: Mapping[str, str], body: bytes
    ) -> NotNowError | None:
        try:
            lane.begin("POST", self._prefix + path, headers, [body])
        except FAILURES as error:
            return self.unreachable(error)
        return None

    def _finish(self, lane: Connection) -> Outcome:
        try:
            self.judge(lane.finish())
        except FAILURES as error:
            return self.unreachable(error)
        except (NotNowError, RefusedError) as error:
            return error
        return None

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        return self._content(self._answer(method, path, body))

    def _answer(self, method: str, path: str, body: Any = None) -> Answer:
        headers = self.headers if body is None else self._headers_of_post()
        content = None if body is None else [orjson.dumps(body)]
        try:
            return self._lanes[0].ask(method, self._prefix + path, headers, content)
        except FAILURES as error:
            raise self.unreachable(error) from error

    def _content(self, answer: Answer) -> Any:
        self.judge(answer)
        try:
            return orjson.loads(answer.body)
        except ValueError:
            told = self.told(f"answered {answer.content_type or 'nothing'} where MLflow answers JSON")
            raise RefusedError(told, answer.status) from None

    def _headers_of_post(self) -> dict[str, str]:
        return {**self.headers, "content-type": "application/json"}
