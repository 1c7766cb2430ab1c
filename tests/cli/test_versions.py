from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from wherefrom import keys

from .conftest import make_release, make_trace, run

Write = Callable[..., None]


@pytest.fixture
def releases(write: Write) -> None:
    """1.1.0 was bad, 1.1.1 put it right."""
    write(
        *make_release("1.0.0", 200, errors=4),
        *make_release("1.1.0", 200, first=200, errors=40),
        *make_release("1.1.1", 200, first=400, errors=4),
    )


@pytest.mark.usefixtures("releases")
def test_each_release_is_compared_with_the_one_before() -> None:
    result = run("versions", width=140)
    assert result.code == 0
    titles = result.lines[0]
    assert titles.index("first seen") < titles.index("traces") < titles.index("against")
    assert [line.split()[0] for line in result.lines[1:4]] == ["1.0.0", "1.1.0", "1.1.1"]
    assert result.lines[2].split()[-3:] == ["1.0.0", "✗", "worse"]
    assert result.lines[3].split()[-3:] == ["1.1.0", "✓", "better"]
    assert "It got worse with 1.1.0 and better again with 1.1.1." in result.out


def test_what_has_not_become_better_is_said(write: Write) -> None:
    write(*make_release("1.0.0", 200, errors=4), *make_release("1.1.0", 200, first=200, errors=40))
    assert "It got worse with 1.1.0, and no release since has made it better." in run("versions").out


@pytest.mark.usefixtures("releases")
def test_json_names_the_regressions() -> None:
    found = json.loads(run("versions", "--json").out)
    assert [(one["began"], one["after"], one["ended"]) for one in found["regressions"]] == [
        ("1.1.0", "1.0.0", "1.1.1")
    ]


@pytest.mark.usefixtures("releases")
def test_80_columns_hold_when_it_came() -> None:
    lines = run("versions", width=80).lines
    assert "first seen" in lines[0]
    assert all(len(line) <= 80 for line in lines)


def test_releases_may_be_commits(write: Write) -> None:
    write(make_trace(1, metadata={keys.GIT_COMMIT: "abc"}), make_trace(2, metadata={keys.GIT_COMMIT: "def"}))
    result = run("versions", "--by", keys.GIT_COMMIT)
    assert [line.split()[0] for line in result.lines[1:3]] == ["abc", "def"]


@pytest.mark.usefixtures("releases")
def test_the_filter_and_the_experiment_are_passed_on() -> None:
    assert len(json.loads(run("versions", "--where", "status = 'ERROR'", "--json").out)["rows"]) == 3
    assert json.loads(run("versions", "--experiment", "none", "--json").out)["rows"] == []
