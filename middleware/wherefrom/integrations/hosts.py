"""Allow-lists of hosts."""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import ip_address
from typing import Final

__all__ = ["Hosts"]

_NOT_IN_A_NAME: Final = re.compile(r"[\s/*@?#:\[\]]")


class Hosts:
    """Hosts by name: ``"api.internal"`` is that one, ``".internal"`` every one below ``internal``.

    Neither case nor the dot at the end of a full name matters; ports are not looked at.

    Raises:
        ValueError: an entry is not a host, so that nothing would ever match it.
    """

    def __init__(self, names: str | Iterable[str] = ()) -> None:
        entries = [_entry(name) for name in ((names,) if isinstance(names, str) else names)]
        self._names = frozenset(name for name in entries if not name.startswith("."))
        self._suffixes = tuple(name for name in entries if name.startswith("."))

    def __contains__(self, host: str) -> bool:
        name = _clean(host)
        return name in self._names or name.endswith(self._suffixes)


def _entry(text: str) -> str:
    name = _clean(text)
    if not name.strip(".") or (_NOT_IN_A_NAME.search(name) and not _is_address(name)):
        raise ValueError(f"{text!r} is not a host: write one as api.internal, all below as .internal")
    return name


def _clean(host: str) -> str:
    return host.lower().strip("[]").rstrip(".")


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
