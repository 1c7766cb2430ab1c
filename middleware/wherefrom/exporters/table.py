"""What was encoded before and comes again: attribute keys with their usual values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

Encoded = TypeVar("Encoded", str, bytes)

_MAX_KEYS: Final = 1000
_MAX_VALUES: Final = 64
_MAX_LENGTH: Final = 500


class Values(dict[Any, Encoded], Generic[Encoded]):
    """``values[value]`` is a value, encoded; the first 64 that are short are kept.

    All values must be of one type: to a dict, 1 and True are the same. ``encode`` is for values that do not
    come again.
    """

    __slots__ = ("_room", "encode")

    encode: Callable[[Any], Encoded]

    def __init__(self, encode: Callable[[Any], Encoded]) -> None:
        super().__init__()
        self.encode = encode
        self._room = _MAX_VALUES

    def __missing__(self, value: Any) -> Encoded:
        encoded = self.encode(value)
        if self._room and len(encoded) < _MAX_LENGTH:
            self._room -= 1
            self[value] = encoded
        return encoded


class Table(dict[str, Values[Encoded]], Generic[Encoded]):
    """``table[key][value]`` is an attribute, encoded.

    Most attributes of requests repeat (method, route, status, host, agent), and looking one up costs a
    quarter of encoding it. ``encoder(key)`` gives the function that encodes values under that key.
    """

    __slots__ = ("_encoder",)

    _encoder: Callable[[str], Callable[[Any], Encoded]]

    def __init__(self, encoder: Callable[[str], Callable[[Any], Encoded]]) -> None:
        super().__init__()
        self._encoder = encoder

    def __missing__(self, key: str) -> Values[Encoded]:
        values = Values(self._encoder(key))
        if len(self) >= _MAX_KEYS:  # keys made up as they go: start again rather than grow
            self.clear()
        self[key] = values
        return values
