"""A candidate that is watched while its traces arrive; nothing here waits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from wherefrom import Trace
from wherefrom.analysis import Verdict
from wherefrom.analysis.watch import Look, watch
from wherefrom.exceptions import FilterError
from wherefrom.stores import Store, open_store

from .traffic import START, make_trace


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = open_store(f"sqlite:///{tmp_path / 'wherefrom.db'}")
    yield store
    store.close()


def traffic(version: str, minute: int, *, errors: int = 0, count: int = 240) -> list[Trace]:
    """A minute of four processes; ``errors`` of each 20 traces fail."""
    return [
        make_trace(
            minute * 100_000 + 10_000 * int(version[2]) + number,
            version=version,
            ms=80 + 7 * (number % 9),
            failed=number % 20 < errors,
            at=START + minute * 60_000 + number * 60_000 // count,
            metadata={"service.instance.id": f"{version}-{number % 4}"},
        )
        for number in range(count)
    ]


class Deployment:
    """A store that a release sends traces to, a minute's with each wait of the watch."""

    def __init__(self, store: Store, *, errors: int = 0, begins: int = 1) -> None:
        self.minute = 0
        self._store, self._errors, self._begins = store, errors, begins
        store.write(traffic("1.0.0", 0))

    def clock(self) -> int:
        return START + self.minute * 60_000

    def wait(self, seconds: float) -> None:
        assert seconds == 60
        self.minute += 1
        self._store.write(traffic("1.0.0", self.minute))
        if self.minute >= self._begins:
            self._store.write(traffic("1.1.0", self.minute, errors=self._errors))

    def watch(
        self, candidate: str = "1.1.0", *, minutes: int = 30, baseline: str | None = None
    ) -> list[Look]:
        return list(
            watch(
                self._store,
                candidate,
                for_ms=minutes * 60_000,
                every_ms=60_000,
                baseline=baseline,
                clock=self.clock,
                wait=self.wait,
            )
        )


def test_a_worse_release_ends_the_watch(store: Store) -> None:
    """The watch waits for the first trace, then ends long before the time is over."""
    looks = Deployment(store, errors=8, begins=3).watch()
    assert [look.verdict for look in looks[:3]] == [Verdict.TOO_FEW] * 3
    assert looks[0].text == "No trace has app_version '1.1.0' yet."
    assert looks[-1].verdict is Verdict.WORSE
    assert looks[-1].is_sure
    assert looks[-1].against == "1.0.0"
    assert looks[-1].text.startswith("1.1.0 is worse than 1.0.0: error rate ")
    assert 4 <= len(looks) < 20
    assert looks[-1].left_ms == 60_000 * (31 - len(looks))


def test_without_a_difference_the_time_decides(store: Store) -> None:
    looks = Deployment(store).watch(minutes=6, baseline="1.0.0")
    assert len(looks) == 7
    assert {look.verdict for look in looks[1:]} == {Verdict.NO_DIFFERENCE}
    assert [look.left_ms for look in looks][-2:] == [60_000, 0]
    assert looks[-1].traces == (6 * 240, 7 * 240)


def test_the_first_release_has_nothing_before_it(store: Store) -> None:
    (look,) = Deployment(store).watch("1.0.0", minutes=0)
    assert look.verdict is Verdict.TOO_FEW
    assert look.text == "There is no value of app_version before 1.0.0 to compare it with."


def test_a_wrong_baseline_is_an_error_at_once(store: Store) -> None:
    with pytest.raises(FilterError, match=r"no trace to compare with has app_version '1.0.1'; did you mean"):
        Deployment(store).watch(baseline="1.0.1")
    with pytest.raises(FilterError, match="cannot be compared with itself"):
        Deployment(store).watch(baseline="1.1.0")
