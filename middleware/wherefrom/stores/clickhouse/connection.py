"""Queries and inserts over ClickHouse's HTTP interface, or on its engine in this process (chdb).

Rows come and go as lines of JSON arrays: reading and writing them costs Python one call of a JSON library.
Values of a query are bound parameters, always.
"""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import orjson

from ..._permissions import data_path
from ...exceptions import (
    MissingExtraError,
    QueryCancelledError,
    QueryTimeoutError,
    StoreError,
    StoreUnavailableError,
)
from ...process import process
from ..credentials import check_at_sign
from ..deadline import Deadline, current_deadline
from .schema import checked_name

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

_FORMAT: Final = "JSONCompactEachRow"
_CONNECT_TIMEOUT_S: Final = 5
_ANSWER_TIMEOUT_S: Final = 300
_MOST_SHOWN: Final = 300  # characters of an error of the server

# What the meaning of our SQL depends on, whatever the profile of the user sets.
_MEANING: Final = {
    "output_format_json_quote_64bit_integers": 0,
    "join_use_nulls": 0,
    "transform_null_in": 0,
    "precise_float_parsing": 1,
    "distributed_product_mode": "local",
    "do_not_merge_across_partitions_select_final": 1,
    "max_query_size": 16_000_000,
    "max_ast_elements": 1_000_000,
    "max_expanded_ast_elements": 1_000_000,
    "max_ast_depth": 10_000,
    "max_parser_depth": 10_000,
    "max_parser_backtracks": 100_000_000,
}
# The files of the engine in this process are in memory: a thread of its own for each read doubles its cost.
_IN_PROCESS: Final = {"local_filesystem_read_method": "pread"}
_WRITING: Final = {
    "insert_distributed_sync": 1,
    "max_partitions_per_insert_block": 0,
    "date_time_input_format": "basic",
}

_TIMEOUT_EXCEEDED: Final = 159
_CANCELLED: Final = 394
_MISSING: Final = frozenset({60, 81})  # UNKNOWN_TABLE, UNKNOWN_DATABASE
_LACKING: Final = frozenset({16, 47})  # NO_SUCH_COLUMN_IN_TABLE, UNKNOWN_IDENTIFIER
# What may be over after a while: limits, network, Keeper, replicas, disks.
_TEMPORARY: Final = frozenset(
    {None, 159, 202, 203, 209, 210, 225, 236, 241, 242, 243, 252, 279, 285, 286, 319, 394, 516, 999}
)


@dataclass(frozen=True)
class Target:
    """What the URL of a store says.

    ``host`` is ``None`` for the engine in this process, whose files are in ``folder``.
    """

    database: str
    host: str | None = None
    port: int = 0
    user: str | None = None
    password: str = field(default="", repr=False)
    secure: bool = False
    cluster: str | None = None
    async_insert: bool = True
    options: Mapping[str, str] = field(default_factory=dict)
    folder: str = ""

    @property
    def url(self) -> str:
        """The URL that opens the store again, without credentials."""
        if self.host is None:
            return f"chdb:///{self.folder}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        given = dict(self.options)
        if self.secure:
            given["secure"] = "true"
        if self.cluster is not None:
            given["cluster"] = self.cluster
        if not self.async_insert:
            given["async_insert"] = "false"
        query = "&".join(f"{name}={quote(value, safe='/')}" for name, value in given.items())
        return f"clickhouse://{host}:{self.port}/{self.database}{query and '?' + query}"


DATABASE: Final = "wherefrom"
_OPTIONS: Final = ("ca_cert", "client_cert", "client_cert_key", "verify", "server_host_name")
_BOOLEANS: Final = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def parse_url(url: str) -> Target:
    """Parse ``clickhouse://user:password@host:8123/database?secure=true`` or ``chdb:///folder``.

    Raises:
        StoreError: the URL cannot be used; the message does not repeat the password.
    """
    scheme, _, rest = url.partition("://")
    if scheme == "chdb":
        if not rest.startswith("/") or len(rest) == 1 or "?" in rest:
            raise StoreError("chdb takes a folder: chdb:///relative/folder or chdb:////absolute/folder")
        try:
            return Target(DATABASE, folder=str(data_path(rest[1:])))
        except ValueError as error:
            raise StoreError(f"the path of the store {error}") from None
    check_at_sign(rest, "/?#")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:  # whose text may show a part of a password
        raise StoreError(
            "the URL of the ClickHouse store cannot be read: it is clickhouse://user:password@host:8123/database,"
            " where characters such as / in a password are written %2F"
        ) from None
    if not host:
        raise StoreError("the URL of the ClickHouse store names no host: clickhouse://host:8123/database")
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    secure = _boolean(given.pop("secure", "false"), "secure")
    cluster = given.pop("cluster", None)
    async_insert = _boolean(given.pop("async_insert", "true"), "async_insert")
    if unknown := sorted(given.keys() - set(_OPTIONS)):
        known = ", ".join(("secure", "cluster", "async_insert", *_OPTIONS))
        raise StoreError(f"the URL of the ClickHouse store has an option {unknown[0]!r}: it takes {known}")
    return Target(
        checked_name(unquote(parts.path.strip("/")) or DATABASE, "database"),
        host,
        port or (8443 if secure else 8123),
        None if parts.username is None else unquote(parts.username),
        unquote(parts.password or ""),
        secure,
        None if cluster is None else checked_name(cluster, "cluster"),
        async_insert,
        given,
    )


def _boolean(text: str, name: str) -> bool:
    if text.lower() not in _BOOLEANS:
        raise StoreError(f"{name} in the URL of the ClickHouse store is true or false, not {text!r}")
    return _BOOLEANS[text.lower()]


class Connection:
    """Sends statements to one database, from any thread; each process has connections of its own."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self._lock = threading.Lock()
        self._free: list[Client] = []
        self._pid = os.getpid()
        self._engine_pid: int | None = None
        self._closings = 0

    def rows(
        self,
        sql: str,
        values: Mapping[str, Any] | None = None,
        deadlines: Sequence[Deadline] = (),
        *,
        with_database: bool = True,
    ) -> list[list[Any]]:
        """The rows of a query with bound ``values``, by the surrounding deadline and by ``deadlines``.

        Raises:
            QueryTimeoutError: the query took longer than a deadline.
            QueryCancelledError: it was cancelled.
            StoreUnavailableError: the server is out of reach or overloaded.
            StoreError: the query failed.
        """
        own = current_deadline()
        bounds = [*([] if own is None else [own]), *deadlines]
        name = uuid.uuid4().hex
        left = [bound.seconds_left for bound in bounds if bound.seconds_left is not None]
        settings = {**_MEANING, **({} if self.target.host else _IN_PROCESS), "log_comment": name}
        if left:
            settings["max_execution_time"] = max(min(left), 0.001)
        text = f"{sql}\nSETTINGS {', '.join(f'{key} = {value!r}' for key, value in settings.items())}"
        with ExitStack() as stack:
            for bound in bounds:
                stack.enter_context(bound.interrupting(lambda: self._kill_soon(name)))
            try:
                with self._client() as client:
                    data = client.raw_query(
                        text, _used(text, values), fmt=_FORMAT, use_database=with_database
                    )
                return _parse(data)
            except StoreError as error:
                for bound in bounds:
                    bound.check()
                if getattr(error.__cause__, "code", None) == _TIMEOUT_EXCEEDED and bounds:
                    raise QueryTimeoutError(str(error)) from error
                if getattr(error.__cause__, "code", None) == _CANCELLED:
                    raise QueryCancelledError("the query was cancelled") from error
                raise
            except KeyboardInterrupt:
                self._kill(name)
                raise

    def insert(
        self, table: str, columns: Sequence[str], data: bytes, token: str, *, alone: bool = False
    ) -> None:
        """Insert rows, from ``to_lines``; return when the server has them. It takes one ``token`` once.

        ``alone``: not together with those of others, of which a server alone does not know the tokens.

        Raises:
            StoreUnavailableError: not now; the same call may succeed later.
            StoreError: the server refused them.
        """
        settings: dict[str, Any] = {**_WRITING, "insert_deduplication_token": token}
        if self.target.host is not None and self.target.async_insert and not alone:
            settings |= {"async_insert": 1, "wait_for_async_insert": 1}
            if self.target.cluster is not None:
                settings["async_insert_deduplicate"] = 1  # tables that are not replicated do not know it
        with self._client() as client:
            client.raw_insert(table, columns, data, settings=settings, fmt=_FORMAT)

    def execute(
        self, sql: str, values: Mapping[str, Any] | None = None, *, with_database: bool = True
    ) -> None:
        """Run a statement that returns nothing."""
        with self._client() as client:
            # Not as a command: of that the driver writes all values into the address, however long they are.
            client.raw_query(sql, _used(sql, values), use_database=with_database)

    def close(self) -> None:
        """Close what this process has open."""
        with self._lock:
            self._closings += 1
            clients = self._clients()
            while clients:
                _close(clients.pop())

    def after_fork(self) -> None:
        """In a forked child: leave the parent's connections alone."""
        self._lock = threading.Lock()

    def _kill_soon(self, name: str) -> None:
        """Who cancels, such as an event loop, does not wait for the server."""
        threading.Thread(
            target=self._kill, args=(name, self._closings), name="wherefrom-cancel", daemon=True
        ).start()

    def _kill(self, name: str, closings: int | None = None) -> None:
        with suppress(StoreError), self._client(closings) as client:
            on_cluster = f"ON CLUSTER '{self.target.cluster}' " if self.target.cluster else ""
            kill = f"KILL QUERY {on_cluster}WHERE Settings['log_comment'] = {{name:String}} ASYNC"
            client.command(kill, {"name": name})

    @contextmanager
    def _client(self, closings: int | None = None) -> Iterator[Client]:
        """A client that no other thread uses, with the driver's errors as those of Wherefrom.

        It is closed at the end, and not kept, if there were more closings than these, or since it was taken.
        """
        with _mapped_errors(self.target):
            with self._lock:
                clients = self._clients()
                client = clients.pop() if clients else None
                closings = self._closings if closings is None else closings
            client = client or self._open()
            try:
                yield client
            finally:
                with self._lock:
                    if closings == self._closings:
                        self._clients().append(client)
                        client = None
                if client is not None:
                    _close(client)

    def _clients(self) -> list[Client]:
        if self._pid != os.getpid():
            process.never_close(self._free)
            self._free, self._pid = [], os.getpid()
        return self._free

    def _open(self) -> Client:
        target = self.target
        try:
            import clickhouse_connect
            from clickhouse_connect.driver.exceptions import ClickHouseError
            from clickhouse_connect.driver.httputil import get_pool_manager
        except ImportError as error:
            raise MissingExtraError("the ClickHouse store", "clickhouse") from error
        if target.host is None:
            if self._engine_pid not in {None, os.getpid()}:
                raise StoreError(
                    f"{target.url} is open in the parent of this process: the engine has no threads here"
                )
            self._engine_pid = os.getpid()
            try:
                client = clickhouse_connect.get_client(interface="chdb", path=target.folder)
            except ImportError as error:
                raise StoreError(f"{target.url} needs the engine: pip install chdb") from error
            except ClickHouseError as error:
                if "already initialized with path" not in str(error):
                    raise
                raise StoreError(
                    f"{target.url} cannot be opened: the engine has another folder open in this process"
                ) from error
        else:
            options: dict[str, Any] = dict(target.options)
            options["verify"] = _boolean(options.get("verify", "true"), "verify")
            if server_name := options.pop("server_host_name", None):
                options["server_hostname"] = options["assert_hostname"] = server_name
            client = clickhouse_connect.get_client(
                interface="https" if target.secure else "http",
                host=target.host,
                port=target.port,
                username=target.user,
                password=target.password,
                # The driver's own pool is shared with the children of a fork.
                pool_mgr=get_pool_manager(**(options if target.secure else {})),
                connect_timeout=_CONNECT_TIMEOUT_S,
                send_receive_timeout=_ANSWER_TIMEOUT_S,
                show_clickhouse_errors="scrub",
                autogenerate_session_id=False,
                settings={"wait_end_of_query": 1},
            )
        client.database = target.database
        return client


def _close(client: Client) -> None:
    client.close_connections()
    client.close()


def to_lines(rows: Iterable[Sequence[Any]]) -> bytes:
    """Rows as the server reads them."""
    return b"\n".join(map(orjson.dumps, rows))


def is_missing(error: StoreError) -> bool:
    """Whether the error says that the database or a table does not exist."""
    return getattr(error.__cause__, "code", None) in _MISSING


def _used(sql: str, values: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The values that the statement names: without a name in it the driver would format it as a template."""
    return {name: value for name, value in (values or {}).items() if f"{{{name}:" in sql} or None


def _parse(data: bytes) -> list[list[Any]]:
    try:
        rows: list[list[Any]] = orjson.loads(b"[%b]" % data.strip(b"\n").replace(b"\n", b","))
    except orjson.JSONDecodeError as error:  # the server appends an error that comes after the first rows
        raise StoreUnavailableError("the answer of the store broke off") from error
    return rows


@contextmanager
def _mapped_errors(target: Target) -> Iterator[None]:
    try:
        from clickhouse_connect.driver.exceptions import ClickHouseError
    except ImportError as error:
        raise MissingExtraError("the ClickHouse store", "clickhouse") from error
    try:
        yield
    except ClickHouseError as error:
        lines = str(error).rpartition("DB::Exception: ")[2].splitlines() or [type(error).__name__]
        reason = lines[0][:_MOST_SHOWN]
        if target.password:
            reason = reason.replace(target.password, "********")
        if getattr(error, "code", None) in _TEMPORARY:
            raise StoreUnavailableError(f"{target.url} cannot be reached now: {reason}") from error
        if getattr(error, "code", None) in _LACKING:
            raise StoreError(
                f"the tables in {target.url} are of another version; 'wherefrom db schema' prints those of"
                f" this one: {reason}"
            ) from error
        raise StoreError(f"{target.url} refused a statement: {reason}") from error
