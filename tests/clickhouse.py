"""ClickHouse's HTTP interface in front of one chdb, for tests: ``python -m tests.clickhouse folder``.

It prints its port. Statements of one request run in a thread with a connection of its own, so that queries
run side by side and can be killed. ``POST /stop`` ends the process at once, as a crash would.
"""

from __future__ import annotations

import os
import re
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

import chdb
import uvicorn
from anyio.to_thread import run_sync
from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

# Of the interface itself, which the engine does not know.
_TRANSPORT = {
    "database", "query", "query_id", "wait_end_of_query", "compress", "client_protocol_version", "session_id",
}  # fmt: skip
_INSERT = re.compile(rb"\s*INSERT\s", re.IGNORECASE)
CONFIGURATION = Path(__file__).with_suffix(".xml")
_CODE = re.compile(r"Code: (\d+)")
# ``http_max_field_value_size`` of a server that nobody has configured.
MAX_FIELD = 128 * 1024
# Compiling an expression takes longer than it ever runs here, and so does a thread for each read of a file.
_QUICK = (
    "SET max_threads = 1, max_insert_threads = 1, log_queries = 0, log_profile_events = 0, "
    "compile_expressions = 0, compile_aggregate_expressions = 0, compile_sort_description = 0, "
    "local_filesystem_read_method = 'pread'"
)


class Connection:
    """A connection to the engine, which keeps database and settings: changing them takes statements."""

    def __init__(self, place: str) -> None:
        connect: Any = chdb.connect  # some versions have types, and some have none
        self._session = connect(place)
        self._session.query(_QUICK)
        self.database = ""
        self.settings: dict[str, str] = {}

    def use(self, database: str, settings: dict[str, str]) -> None:
        if database != self.database:
            self._session.query(f"USE `{database}`")
            self.database = database
        changes = [f"{name} = DEFAULT" for name in self.settings if name not in settings]
        changes += [
            f"{name} = '{value}'" for name, value in settings.items() if self.settings.get(name) != value
        ]
        if changes:
            self.settings = self.settings | settings  # if the engine takes only some of them
            self._session.query(f"SET {', '.join(changes)}")
            self.settings = settings

    def query(self, statement: bytes, values: dict[str, str]) -> bytes:
        return bytes(self._session.query(statement, "TabSeparated", params=values).bytes())


class Engine:
    """Connections to the engine, lent to one thread at a time."""

    def __init__(self, folder: str) -> None:
        self._place = f"{folder}?config-file={CONFIGURATION}"
        self._free: list[Connection] = []
        self._lock = Lock()

    @contextmanager
    def connection(self, database: str, settings: dict[str, str]) -> Iterator[Connection]:
        """One that is free, if possible one that needs no changes."""
        with self._lock:
            self._free.sort(key=lambda one: (one.database, one.settings) == (database, settings))
            connection = self._free.pop() if self._free else None
        if connection is None:
            connection = Connection(self._place)
        try:
            connection.use(database, settings)
            yield connection
        finally:
            with self._lock:
                self._free.append(connection)

    def run(self, statement: bytes, database: str, values: dict[str, str], settings: dict[str, str]) -> bytes:
        if _INSERT.match(statement):
            head, _, block = statement.partition(b"\n")
            if settings:
                clause = ", ".join(f"{name} = '{value}'" for name, value in settings.items())
                head = head.replace(b" FORMAT ", f" SETTINGS {clause} FORMAT ".encode())
            statement, settings = head + b"\n" + block, {}
        with self.connection(database, settings) as connection:
            return connection.query(statement, values)


def make_app(folder: str) -> Starlette:
    engine = Engine(folder)

    async def answer(request: Request) -> Response:
        given = dict(request.query_params)
        body = b""
        if request.headers.get("content-type", "").startswith("multipart/"):
            async with request.form(max_fields=100_000, max_part_size=MAX_FIELD) as form:
                for name, value in form.items():
                    text = (await value.read()).decode() if isinstance(value, UploadFile) else value
                    if len(text.encode()) > MAX_FIELD:
                        return PlainTextResponse(f"Field {name} is too long", 400)
                    given[name] = text
        else:
            body = await request.body()
        statement = b"\n".join(part for part in (given.get("query", "").encode(), body) if part)
        values = {name[6:]: value for name, value in given.items() if name.startswith("param_")}
        settings = {
            name: value
            for name, value in given.items()
            if name not in _TRANSPORT and not name.startswith("param_")
        }
        database = given.get("database", "default")
        try:
            found = await run_sync(engine.run, statement, database, values, settings)
        except Exception as error:
            code = _CODE.search(str(error))
            headers = {"X-ClickHouse-Exception-Code": code[1]} if code else {}
            return PlainTextResponse(str(error), 500, headers)
        return Response(found, headers={"X-ClickHouse-Format": "TabSeparated"} if found else {})

    async def ping(request: Request) -> Response:
        return PlainTextResponse("Ok.\n")

    async def stop(request: Request) -> Response:
        os._exit(1)

    routes = [Route("/", answer, methods=["GET", "POST"]), Route("/ping", ping)]
    return Starlette(routes=[*routes, Route("/stop", stop, methods=["POST"])])


if __name__ == "__main__":
    listener = socket.create_server(("127.0.0.1", int(sys.argv[2]) if len(sys.argv) > 2 else 0))
    print(listener.getsockname()[1], flush=True)
    uvicorn.Server(uvicorn.Config(make_app(sys.argv[1]), log_level="warning")).run([listener])
