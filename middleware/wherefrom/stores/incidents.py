"""Incidents of alert rules, and the messages about them, in a small SQLite file of their own.

Several processes may evaluate the same rules: one of them opens the incident, which the unique index on open
incidents decides, and one sends each message, which the lease on it decides. What is written before and after
sending is durable, so that a process that ends in between leaves a message that is due again, with its key.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal
from uuid import uuid4

from .._permissions import make_private
from ..exceptions import StoreError, StoreUnavailableError, StoreVersionError

_VERSION: Final = 1
_BUSY_TIMEOUT_S: Final = 10.0
_LEASE_MS: Final = 60_000
"""How long one process may take to send a message; longer than the timeout of the request."""
_FIRST_PAUSE_MS: Final = 5_000
_LONGEST_PAUSE_MS: Final = 600_000
_GIVEN_UP_MS: Final = 24 * 3_600_000
_KEPT_MS: Final = 90 * 24 * 3_600_000
_MOST_DOUBLINGS: Final = 10
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS incidents (
    key TEXT PRIMARY KEY,
    rule TEXT NOT NULL,
    subject TEXT NOT NULL,
    text TEXT NOT NULL,
    link TEXT NOT NULL,
    began INTEGER NOT NULL,
    last_fired INTEGER NOT NULL,
    ended INTEGER
) WITHOUT ROWID;
CREATE UNIQUE INDEX IF NOT EXISTS one_open ON incidents (rule, subject) WHERE ended IS NULL;
CREATE INDEX IF NOT EXISTS by_begin ON incidents (began);
CREATE TABLE IF NOT EXISTS messages (
    key TEXT PRIMARY KEY,
    incident TEXT NOT NULL REFERENCES incidents (key),
    status TEXT NOT NULL,
    created INTEGER NOT NULL,
    due INTEGER NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    delivered INTEGER,
    problem TEXT,
    UNIQUE (incident, status)
) WITHOUT ROWID;
"""

_INCIDENTS: Final = """
i.key, i.rule, i.subject, i.text, i.link, i.began, i.last_fired, i.ended, f.delivered, f.attempts, f.problem
FROM incidents i JOIN messages f ON f.incident = i.key AND f.status = 'firing'
"""
_LATEST: Final = f"SELECT {_INCIDENTS} ORDER BY i.began DESC, i.key LIMIT :limit"
_DUE: Final = f"""
SELECT m.key, m.status, m.attempts + 1, {_INCIDENTS} JOIN messages m ON m.incident = i.key
WHERE m.delivered IS NULL AND m.due <= :now AND m.created > :given_up
AND (m.status = 'firing' OR f.delivered IS NOT NULL) AND i.rule IN (SELECT value FROM json_each(:rules))
ORDER BY m.due, m.key LIMIT 1
"""  # noqa: S608 - of constants

Status = Literal["firing", "resolved"]


@dataclass(frozen=True, slots=True)
class Incident:
    """An incident of a rule; times in ms since the epoch, ``ended`` is ``None`` while it lasts.

    ``text`` and ``link`` are what was seen when it began. ``delivered`` is when the message of its begin was
    accepted, ``attempts`` how often it was sent, ``problem`` why the last attempt failed.
    """

    key: str
    rule: str
    subject: str
    text: str
    link: str
    began: int
    last_fired: int
    ended: int | None
    delivered: int | None
    attempts: int
    problem: str | None


@dataclass(frozen=True, slots=True)
class Message:
    """A message that is due; ``key`` is the same in all attempts, and of no other message."""

    key: str
    status: Status
    attempts: int
    incident: Incident


class Incidents:
    """The incidents in a file, which is made when the first rule fires."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def record(
        self,
        rule: str,
        subject: str,
        *,
        fires: bool,
        text: str,
        link: str,
        now: int,
        quiet_ms: int,
        resolved: bool,
    ) -> Status | None:
        """Record that a rule fires or not: ``firing`` if an incident begins, ``resolved`` if one ends.

        An incident ends when its rule has not fired for ``quiet_ms``. ``resolved``: a message says so.
        """
        if not fires and not self.path.exists():
            return None
        with self._transaction() as connection:
            if fires and _fire(connection, rule, subject, text, link, now):
                return "firing"
            ended = connection.execute(
                "UPDATE incidents SET ended = :now WHERE rule = :rule AND ended IS NULL"
                " AND last_fired <= :since RETURNING key",
                {"now": now, "rule": rule, "since": now - quiet_ms},
            ).fetchall()
            for (key,) in ended if resolved else ():
                _add_message(connection, key, "resolved", now)
            return "resolved" if ended else None

    def claim(self, rules: Sequence[str], now: int) -> Message | None:
        """The next message that is due of these rules, which no other process sends for a minute.

        A message says that an incident has ended only after the one that it has begun.
        """
        if not self.path.exists():
            return None
        with self._transaction() as connection:
            row = connection.execute(
                _DUE,
                {"now": now, "given_up": now - _GIVEN_UP_MS, "rules": json.dumps(rules)},
            ).fetchone()
            if row is None:
                return None
            key, status, attempts, *incident = row
            connection.execute(
                "UPDATE messages SET due = :due, attempts = :attempts WHERE key = :key",
                {"due": now + _LEASE_MS, "attempts": attempts, "key": key},
            )
        return Message(key, status, attempts, Incident(*incident))

    def delivered(self, message: Message, now: int) -> None:
        """Record that a message was accepted."""
        with self._transaction() as connection:
            connection.execute(
                "UPDATE messages SET delivered = :now, problem = NULL WHERE key = :key",
                {"now": now, "key": message.key},
            )

    def postpone(self, message: Message, now: int, problem: str, pause_ms: float = 0) -> None:
        """Record that a message was not accepted: it is due again after a pause that doubles each time.

        ``pause_ms`` is the shortest pause that the receiver asks for. A day after the first attempt there is
        no other.
        """
        doubled = _FIRST_PAUSE_MS * 2 ** min(message.attempts - 1, _MOST_DOUBLINGS)
        pause = min(max(doubled, int(pause_ms)), _LONGEST_PAUSE_MS)
        with self._transaction() as connection:
            connection.execute(
                "UPDATE messages SET due = :due, problem = :problem WHERE key = :key AND delivered IS NULL",
                {"due": now + pause, "problem": problem, "key": message.key},
            )

    def latest(self, limit: int) -> list[Incident]:
        """Incidents, the latest first."""
        if not self.path.exists():
            return []
        with self._transaction("BEGIN") as connection:
            rows = connection.execute(
                _LATEST,
                {"limit": limit},
            ).fetchall()
        return [Incident(*row) for row in rows]

    @contextmanager
    def _transaction(self, begin: str = "BEGIN IMMEDIATE") -> Iterator[sqlite3.Connection]:
        """A transaction; one that begins at once lets no other process write.

        Raises:
            StoreUnavailableError: the file is locked, full or out of reach.
            StoreVersionError: a newer Wherefrom made it.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            make_private(self.path)
            with closing(
                sqlite3.connect(self.path, timeout=_BUSY_TIMEOUT_S, isolation_level=None)
            ) as connection:
                connection.execute(begin)
                self._prepare(connection)
                yield connection
                connection.execute("COMMIT")
        except (sqlite3.OperationalError, OSError) as error:
            raise StoreUnavailableError(
                f"the incidents of alerts in {self.path} cannot be used now: {error}"
            ) from error
        except sqlite3.Error as error:
            raise StoreError(f"{self.path} cannot be used for the incidents of alerts: {error}") from error

    def _prepare(self, connection: sqlite3.Connection) -> None:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > _VERSION:
            raise StoreVersionError(f"{self.path} was made by a newer Wherefrom (version {version})")
        if version < _VERSION:
            for statement in _SCHEMA.split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {_VERSION}")


def _fire(connection: sqlite3.Connection, rule: str, subject: str, text: str, link: str, now: int) -> bool:
    """Open an incident, or prolong the open one; whether one begins."""
    key = uuid4().hex
    given = {"rule": rule, "subject": subject, "text": text, "link": link, "now": now, "key": key}
    prolonged = connection.execute(
        "UPDATE incidents SET last_fired = max(last_fired, :now) WHERE rule = :rule AND subject = :subject"
        " AND ended IS NULL RETURNING key",
        given,
    ).fetchall()
    # A process that was slow to evaluate must not open anew what another has closed since.
    closed = connection.execute(
        "SELECT 1 FROM incidents WHERE rule = :rule AND subject = :subject AND ended >= :now", given
    ).fetchall()
    if prolonged or closed:
        return False
    connection.execute(
        "INSERT INTO incidents (key, rule, subject, text, link, began, last_fired)"
        " VALUES (:key, :rule, :subject, :text, :link, :now, :now)",
        given,
    )
    _add_message(connection, key, "firing", now)
    old = {"before": now - _KEPT_MS}
    connection.execute(
        "DELETE FROM messages WHERE incident IN (SELECT key FROM incidents WHERE ended < :before)", old
    )
    connection.execute("DELETE FROM incidents WHERE ended < :before", old)
    return True


def _add_message(connection: sqlite3.Connection, incident: str, status: Status, now: int) -> None:
    connection.execute(
        "INSERT INTO messages (key, incident, status, created, due)"
        " VALUES (:key, :incident, :status, :now, :now)",
        {"key": f"{incident}-{status}", "incident": incident, "status": status, "now": now},
    )
