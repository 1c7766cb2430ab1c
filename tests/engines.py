"""The stores that the contract tests run over. Another store is another entry of ``ENGINES``."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

import pytest

NewUrl = Callable[[], str]
"""Gives the URL of a store that does not exist yet, another one with each call."""


def _sqlite(request: pytest.FixtureRequest) -> NewUrl:
    folder = request.getfixturevalue("tmp_path_factory").mktemp("sqlite")
    numbers = count(1)
    return lambda: f"sqlite:///{folder}/traces{next(numbers)}.db"


ENGINES: dict[str, Callable[[pytest.FixtureRequest], NewUrl]] = {"sqlite": _sqlite}
"""By the scheme of its URLs, what makes the URLs of a store, or skips the test where it is not installed."""
