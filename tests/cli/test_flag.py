from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from .conftest import make_release, run

Write = Callable[..., None]


@pytest.fixture
def flags(write: Write) -> None:
    write(
        *make_release("1", 100, metadata={"feature_flag_new_retriever": "true"}, ms=200),
        *make_release("1", 100, first=100, metadata={"feature_flag_new_retriever": "false"}),
    )


@pytest.mark.usefixtures("flags")
@pytest.mark.parametrize("name", ["new_retriever", "feature_flag_new_retriever"])
def test_on_is_compared_with_off(name: str) -> None:
    result = run("flag", name)
    assert result.code == 0
    assert "feature_flag_new_retriever" in result.lines[0]
    assert result.lines[2].endswith("baseline")
    assert ", is worse than false: slower: p50 " in result.out


@pytest.mark.usefixtures("flags")
def test_json() -> None:
    found = json.loads(run("flag", "new_retriever", "--where", "status = 'OK'", "--json").out)
    assert (found["baseline"], [row["value"] for row in found["rows"]]) == ("false", ["true", "false"])


@pytest.mark.usefixtures("flags")
def test_an_unknown_flag_is_answered_with_the_nearest() -> None:
    result = run("flag", "new_retreiver")
    assert result.code == 2
    assert "did you mean feature_flag_new_retriever?" in result.err
