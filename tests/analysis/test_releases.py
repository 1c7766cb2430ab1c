"""Releases in turn, and where what got worse began."""

from __future__ import annotations

from wherefrom.analysis import Verdict, versions
from wherefrom.stores import Store

from .traffic import make_trace, release


def test_each_release_is_compared_with_the_one_before_it(store: Store) -> None:
    store.write(
        [
            *release("1.0", 200, errors=4),
            *release("1.1", 200, first=200, errors=5),
            *release("1.2", 200, first=400, errors=40),
            *release("1.3", 200, first=600, errors=41),
            *release("1.4", 200, first=800, errors=3),
        ]
    )
    found = versions(store=store)
    assert found.baseline is None
    assert [(row.value, row.against, row.verdict) for row in found.rows] == [
        ("1.0", None, None),
        ("1.1", "1.0", Verdict.NO_DIFFERENCE),
        ("1.2", "1.1", Verdict.WORSE),
        ("1.3", "1.2", Verdict.NO_DIFFERENCE),
        ("1.4", "1.3", Verdict.BETTER),
    ]
    (regression,) = found.regressions
    assert (regression.began, regression.after, regression.ended) == ("1.2", "1.1", "1.4")
    assert regression.reason == found.row("1.2").reason
    assert found.regression is None
    assert found.to_dict()["regressions"][0]["began"] == "1.2"


def test_a_regression_that_lasts_is_the_one_to_look_at(store: Store) -> None:
    store.write(
        [
            *release("1.0", 200, errors=100),
            *release("1.1", 200, first=200, errors=4),
            *release("1.2", 200, first=400, errors=40),
            *release("1.3", 200, first=600, errors=120),
        ]
    )
    found = versions(store=store)
    assert [regression.began for regression in found.regressions] == ["1.2", "1.3"]
    assert found.regression is not None
    assert found.regression.began == "1.2"


def test_a_later_regression_leaves_the_end_of_an_earlier_one(store: Store) -> None:
    rates = [4, 80, 4, 80, 4]
    store.write(
        [
            trace
            for number, errors in enumerate(rates)
            for trace in release(f"1.{number}", 200, first=200 * number, errors=errors)
        ]
    )
    assert [(one.began, one.ended) for one in versions(store=store).regressions] == [
        ("1.1", "1.2"),
        ("1.3", "1.4"),
    ]


def test_a_release_with_few_traces_is_passed_over(store: Store) -> None:
    store.write(
        [
            *release("1.0", 100, errors=2),
            *release("1.1rc1", 5, first=100),
            *release("1.1", 100, first=200, errors=40),
        ]
    )
    found = versions(store=store)
    assert found.row("1.1rc1").verdict is Verdict.TOO_FEW
    assert found.row("1.1").against == "1.0"
    assert found.row("1.1").verdict is Verdict.WORSE


def test_before_there_are_enough_it_is_the_one_before(store: Store) -> None:
    store.write([*release("0.1", 5), *release("0.2", 6, first=5), *release("0.3", 50, first=20)])
    found = versions(store=store)
    assert [row.against for row in found.rows] == [None, "0.1", "0.2"]


def test_releases_can_be_told_apart_by_another_key(store: Store) -> None:
    store.write([make_trace(n, metadata={"build": f"b{n}"}) for n in range(2)])
    assert [row.value for row in versions(by="build", store=store).rows] == ["b0", "b1"]
    assert [
        row.value for row in versions("timestamp > 0 AND metadata.build = 'b1'", by="build", store=store).rows
    ] == ["b1"]


def test_no_releases(store: Store) -> None:
    found = versions(store=store)
    assert (found.rows, found.regressions, found.regression) == ((), (), None)
