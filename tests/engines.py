"""The stores that the contract tests run over. Another store is another entry of ``ENGINES``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

import pytest

from .postgresql_server import MISSING


def _nothing(_url: str) -> None:
    pass


@dataclass(frozen=True)
class NewUrl:
    """Gives the URL of a store without traces, another one with each call.

    ``release`` is called with one that is closed and no longer needed: where a new store takes long to make,
    it may be emptied and given again.
    """

    make: Callable[[], str]
    release: Callable[[str], None] = _nothing

    def __call__(self) -> str:
        return self.make()


def _sqlite(request: pytest.FixtureRequest) -> NewUrl:
    folder = request.getfixturevalue("tmp_path_factory").mktemp("sqlite")
    numbers = count(1)
    return NewUrl(lambda: f"sqlite:///{folder}/traces{next(numbers)}.db")


def _postgresql(request: pytest.FixtureRequest) -> NewUrl:
    server = request.getfixturevalue("postgresql_server")
    if server is None:
        pytest.skip(MISSING)
    return NewUrl(server.new_url, server.release)


ENGINES: dict[str, Callable[[pytest.FixtureRequest], NewUrl]] = {
    "sqlite": _sqlite,
    "postgresql": _postgresql,
}
"""By the scheme of its URLs, what makes the URLs of a store, or skips the test where it is not installed."""
