"""Text that PostgreSQL cannot hold, in a form that reads back as it was.

Neither ``text`` nor ``jsonb`` can hold NUL. In the database the noncharacter U+10FFFD stands for it, and
U+10FFFC comes before a U+10FFFD or U+10FFFC that was in the text itself. The driver translates all that it
binds and all that it reads, so no other module knows of it. A pattern's ``_`` matches a NUL as it should.
"""

from __future__ import annotations

import re
from typing import Any, Final

import orjson
from psycopg import BaseConnection
from psycopg.types.string import StrDumperUnknown, TextLoader

from ..sql.types import JsonParameter

_NUL: Final = "\U0010fffd"
_ESCAPE: Final = "\U0010fffc"
_SPECIAL: Final = re.compile(f"[\0{_ESCAPE}{_NUL}]")
_STORED: Final = re.compile(f"{_ESCAPE}(.)|{_NUL}")
_JSON_SPECIAL: Final = re.compile(rf"\\(?:u0000|.)|[{_ESCAPE}{_NUL}]")
_JSON_NUL: Final = "\\u0000"


def to_stored(text: str) -> str:
    """The text as PostgreSQL can hold it."""
    return _SPECIAL.sub(lambda found: _NUL if found[0] == "\0" else _ESCAPE + found[0], text)


def from_stored(text: str) -> str:
    """The text as it was."""
    if _NUL not in text and _ESCAPE not in text:
        return text
    return _STORED.sub(lambda found: found[1] or "\0", text)


def to_stored_json(text: str) -> str:
    """JSON as PostgreSQL can hold it: apart from these characters it is unchanged."""
    if _JSON_NUL not in text and _NUL not in text and _ESCAPE not in text:
        return text

    def replaced(found: re.Match[str]) -> str:
        if found[0] == _JSON_NUL:
            return _NUL
        return found[0] if found[0][0] == "\\" else _ESCAPE + found[0]

    return _JSON_SPECIAL.sub(replaced, text)


def from_stored_json(text: str) -> str:
    """JSON as it was."""
    if _NUL not in text and _ESCAPE not in text:
        return text
    return _STORED.sub(lambda found: found[1] or _JSON_NUL, text)


class StoredJson(str):
    """JSON that ``to_stored_json`` returned, which is bound as it is."""

    __slots__ = ()


def to_json(value: Any) -> StoredJson:
    """The value as JSON that PostgreSQL can hold."""
    return StoredJson(to_stored_json(orjson.dumps(value).decode()))


class _TextDumper(StrDumperUnknown):
    def dump(self, obj: str) -> Any:
        return super().dump(to_stored(obj) if _SPECIAL.search(obj) else obj)


class _JsonDumper(StrDumperUnknown):
    def dump(self, obj: str) -> Any:
        return super().dump(str(obj))


class _ParameterDumper(StrDumperUnknown):
    def dump(self, obj: str) -> Any:
        return super().dump(to_stored_json(str(obj)))


class _TextLoader(TextLoader):
    def load(self, data: Any) -> Any:
        return from_stored(super().load(data))  # type: ignore[arg-type] # the encoding is UTF-8


class _JsonLoader(TextLoader):
    def load(self, data: Any) -> Any:
        return from_stored_json(super().load(data))  # type: ignore[arg-type]


def translate(connection: BaseConnection[Any]) -> None:
    """Translate what a connection binds and reads; JSON is read as text."""
    connection.adapters.register_dumper(str, _TextDumper)
    connection.adapters.register_dumper(StoredJson, _JsonDumper)
    connection.adapters.register_dumper(JsonParameter, _ParameterDumper)
    for name in ("text", "varchar", "bpchar", "name"):
        connection.adapters.register_loader(name, _TextLoader)
    for name in ("json", "jsonb"):
        connection.adapters.register_loader(name, _JsonLoader)
