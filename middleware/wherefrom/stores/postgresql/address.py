"""The address of a store in PostgreSQL: what psycopg takes, and two parameters of ours."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl, quote, unquote, urlencode

from ..._sanitize import MASK
from ...exceptions import StoreError
from ..credentials import check_at_sign

SCHEMES: Final = ("postgresql", "postgres")
DEFAULT_TIMEOUT_S: Final = 60.0
_SECRETS: Final = frozenset({"password", "sslpassword"})


@dataclass(frozen=True)
class Address:
    """A database, and the ``schema`` of the tables in it (``None``: the first of the role's search path).

    ``conninfo`` is for psycopg and may hold a password; ``url`` and ``place`` do not. ``timeout_s`` bounds
    each statement that answers a question; 0: no bound.
    """

    conninfo: str = field(repr=False)
    url: str
    place: str
    schema: str | None = None
    timeout_s: float = DEFAULT_TIMEOUT_S
    secrets: tuple[str, ...] = field(default=(), repr=False)

    def without_secrets(self, text: object) -> str:
        """The text without the password, in one line."""
        shown = " ".join(str(text).split())
        for secret in self.secrets:
            shown = shown.replace(secret, MASK)
        return shown


def parse_address(url: str) -> Address:
    """Parse a URL such as ``postgresql://user@host/database?sslmode=verify-full&schema=traces``.

    Raises:
        StoreError: a parameter of ours has an invalid value, or it is not clear where a password ends.
    """
    rest = url.partition("://")[2]
    check_at_sign(rest, "/?")
    base, _, query = rest.partition("?")
    pairs = parse_qsl(query, keep_blank_values=True)
    own = {name: value for name, value in pairs if name in {"schema", "statement_timeout"}}
    others = [(name, value) for name, value in pairs if name not in own]
    user_part, at, host_part = base.rpartition("@")
    secrets = [value for name, value in others if name in _SECRETS]
    if ":" in user_part:
        secrets += [user_part.partition(":")[2], unquote(user_part.partition(":")[2])]
    public = f"{user_part.partition(':')[0]}@{host_part}" if at else base
    shown = [(name, value) for name, value in pairs if name not in _SECRETS]
    return Address(
        conninfo=_join(base, others),
        url=_join(public, shown),
        place=f"PostgreSQL at {_place(host_part, dict(others)) or 'its default address'}",
        schema=own.get("schema") or None,
        timeout_s=_seconds(own.get("statement_timeout")),
        secrets=tuple(secret for secret in dict.fromkeys(secrets) if secret),
    )


def _place(host_part: str, given: dict[str, str]) -> str:
    """Host and database, wherever in the URL they are; else the service that names them."""
    host, _, database = host_part.partition("/")
    host, database = host or given.get("host", ""), database or given.get("dbname", "")
    return (f"{host}/{database}" if database else host) or given.get("service", "")


def _join(base: str, pairs: list[tuple[str, str]]) -> str:
    query = f"?{urlencode(pairs, quote_via=quote)}" if pairs else ""
    return f"postgresql://{base}{query}"


def _seconds(text: str | None) -> float:
    if text is None:
        return DEFAULT_TIMEOUT_S
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 2_000_000:
        raise StoreError(f"statement_timeout of the store takes seconds, such as 30, not {text!r}")
    return seconds
