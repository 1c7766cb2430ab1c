"""A PostgreSQL server of the tests' own: Debian's programs, run as a user without privileges."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg

MISSING = "PostgreSQL is not installed: apt-get install postgresql"
_TABLES = (
    "traces",
    "spans",
    "trace_values",
    "trace_ids",
    "assessments",
    "known_keys",
    "sources",
    "experiments",
    "processes",
    "rollups",
    "rollup_periods",
    "blocks",
    "block_days",
)
_OPTIONS = (
    "-c listen_addresses= -c fsync=off -c full_page_writes=off"
    " -c max_connections=200 -c shared_buffers=64MB -c autovacuum=off"
)


def programs() -> Path | None:
    """The folder of the programs of the newest PostgreSQL that is installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4]))
    if found:
        return found[-1].parent
    installed = shutil.which("initdb")
    return None if installed is None else Path(installed).resolve().parent


@dataclass
class PostgreSQLServer:
    """A running server; ``folder`` has its socket, and ``schemas`` that are empty and may be used again."""

    folder: Path
    programs: Path
    user: str | None
    schemas: list[str] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=lambda: count(1))

    def run(self, program: str, *arguments: str) -> None:
        """Run a program of PostgreSQL; as root, it is run by another user."""
        command: Sequence[str] = [str(self.programs / program), *arguments]
        if self.user is not None:
            command = ["setpriv", f"--reuid={self.user}", f"--regid={self.user}", "--clear-groups", *command]
        log = self.folder / "output"
        with log.open("ab") as output:  # not a pipe: the server would keep it open
            done = subprocess.run(command, stdout=output, stderr=output, cwd="/", check=False)
        assert done.returncode == 0, log.read_text()

    def start(self, more: str = "") -> None:
        """Start the server, and wait until it answers; ``more`` are options of this run."""
        options = f"{_OPTIONS} -c unix_socket_directories={self.folder} {more}"
        self.run(
            "pg_ctl", "-D", f"{self.folder}/data", "-o", options, "-l", f"{self.folder}/log", "-w", "start"
        )

    def stop(self, mode: str = "immediate") -> None:
        """Stop the server; at once, it comes back as after a crash."""
        self.run("pg_ctl", "-D", f"{self.folder}/data", "-m", mode, "-w", "stop")

    def url(self, user: str = "postgres", **parameters: str) -> str:
        """The URL of the database with more parameters."""
        given = {"host": str(self.folder), **parameters}
        query = "&".join(f"{name}={quote(value, safe='')}" for name, value in given.items())
        return f"postgresql://{user}@/postgres?{query}"

    def connect(self) -> psycopg.Connection[Any]:
        """A connection past the store, in which each statement commits."""
        return psycopg.connect(self.url(), autocommit=True)

    def new_url(self) -> str:
        """The URL of a schema without traces: one that was released, else one without tables."""
        schema = self.schemas.pop() if self.schemas else f"store_{next(self.numbers)}"
        return self.url(schema=schema)

    def release(self, url: str) -> None:
        """Empty a schema, so that it can be used again: creating its tables takes longer."""
        schema = url.rpartition("schema=")[2]
        with self.connect() as connection:
            connection.execute(f"SET search_path = {schema}")
            there = connection.execute(
                "SELECT count(to_regclass(name)) FROM unnest(%s::text[]) name", (list(_TABLES),)
            )
            if there.fetchone() != (len(_TABLES),):
                return
            deletions = "; ".join(f"DELETE FROM {table}" for table in _TABLES)
            # Without triggers.
            connection.execute(f"SET session_replication_role = replica; {deletions}")
            connection.execute("ALTER SEQUENCE experiments_id_seq RESTART")
        self.schemas.append(schema)


@contextmanager
def running_server() -> Iterator[PostgreSQLServer | None]:
    """A server on a socket in a folder of its own; ``None`` where PostgreSQL is not installed."""
    found = programs()
    if found is None:
        yield None
        return
    # Not in the folder of pytest, which other users cannot enter.
    with tempfile.TemporaryDirectory(prefix="postgresql-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        user = None
        if os.geteuid() == 0:
            user = "postgres" if _exists("postgres") else "nobody"
            shutil.chown(folder, user)
        server = PostgreSQLServer(folder, found, user)
        data = f"{folder}/data"
        server.run("initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "-N")
        server.start()
        try:
            yield server
        finally:
            server.stop()


def _exists(user: str) -> bool:
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True
