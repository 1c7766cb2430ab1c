"""Comparisons: every figure is checked against plain Python over the same traces."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import orjson
import pytest

from tests.engines import NewUrl, every_engine, new_store
from tests.sql import noted
from wherefrom import FilterError, Trace, keys
from wherefrom._buckets import bucket_of
from wherefrom.analysis import Interval, Row, Verdict, compare, flag, versions
from wherefrom.analysis.amounts import judge_amounts
from wherefrom.analysis.blocks import Count
from wherefrom.analysis.comparison import STEPS, Report, compare_candidate, make_report
from wherefrom.analysis.scope import find_window, opened
from wherefrom.analysis.timeline import MAX_VALUES
from wherefrom.analysis.verdicts import Pair, amount_text
from wherefrom.exceptions import StoreError
from wherefrom.model import Assessment, Source, TraceState
from wherefrom.stores import Store, open_store
from wherefrom.stores.sqlite.store import SQLiteStore

from .traffic import START, durations, make_trace, random_group, release

HOUR = 3_600_000


def report(
    by: str,
    filter_string: str | None = None,
    *,
    since: str | None = None,
    until: str | None = None,
    store: Store,
) -> Report:
    with opened(store, filter_string) as (snapshot, selection):
        return make_report(snapshot, selection, find_window(snapshot, since, until), by)


@pytest.fixture(scope="module")
def two_releases(new_url: NewUrl) -> Iterator[tuple[Store, list[Trace], list[Trace]]]:
    """1.1.0 fails more often and takes half as long again."""
    old = release("1.0.0", 178, errors=4)
    new = release("1.1.0", 180, first=178, errors=34, ms=150)
    with new_store(new_url) as store:
        store.write([*new, *old])
        yield store, old, new


@every_engine
def test_a_worse_release_is_found(two_releases: tuple[Store, list[Trace], list[Trace]]) -> None:
    store, _, _ = two_releases
    found = compare(store=store)
    assert [row.value for row in found.rows] == ["1.0.0", "1.1.0"]
    assert found.baseline == "1.0.0"
    assert found.row("1.0.0").verdict is None
    assert found.row("1.0.0").against is None
    assert found.row("1.1.0").verdict is Verdict.WORSE
    assert found.row("1.1.0").against == "1.0.0"
    assert found.row("1.1.0").reason.startswith("error rate 18.9 % against 2.2 % (+16.6 points, ")
    assert found.row("1.1.0").reason.endswith(", 180 and 178 traces")
    assert found.tests == 3


@every_engine
@pytest.mark.parametrize("pauses", [(), (1, 2, 90), (0, 1, 40, 41)])
def test_bursts_of_a_few_milliseconds_are_compared(store: Store, pauses: tuple[int, ...]) -> None:
    """100 requests in a loop take some ms: a clock of 1 ms does not divide them into stretches of time."""
    for place, (version, failing) in enumerate((("1.0.0", 1), ("1.1.0", 50))):
        made = release(version, 100, first=100 * place, errors=failing)
        begin = START + 500 * place
        offsets = [pauses[index * len(pauses) // 100] if pauses else 0 for index in range(100)]
        for one, offset in zip(made, offsets, strict=True):
            one.info.request_time = begin + offset
        store.write(made)
    found = compare(store=store).row("1.1.0")
    assert found.verdict is Verdict.WORSE
    assert found.error_difference is not None
    assert (found.error_difference.interval.low or 0) > 0.3


def test_the_other_way_round_it_is_better(two_releases: tuple[Store, list[Trace], list[Trace]]) -> None:
    store, _, _ = two_releases
    found = compare(baseline="1.1.0", store=store)
    assert found.baseline == "1.1.0"
    assert found.row("1.0.0").verdict is Verdict.BETTER


@every_engine
def test_every_figure_is_that_of_the_traces(two_releases: tuple[Store, list[Trace], list[Trace]]) -> None:
    from scipy import stats

    store, _, new = two_releases
    row = compare(store=store).row("1.1.0")
    took = durations(new)
    assert (row.traces, row.errors, row.error_rate) == (180, 34, 34 / 180)
    assert row.p50 == pytest.approx(statistics.median(took), rel=0.01)
    assert row.p95 == pytest.approx(float(np.percentile(took, 95)), rel=0.01)
    assert row.p99 == pytest.approx(float(np.percentile(took, 99)), rel=0.01)
    assert (row.first_seen, row.last_seen) == (START + 178_000, START + 357_000)
    assert row.traces_per_hour == pytest.approx(180 / (179 / 3600))
    for interval, share in ((row.p50_interval, 0.5), (row.p95_interval, 0.95)):
        expected = stats.quantile_test(took, p=share).confidence_interval(0.95)
        assert interval.low == pytest.approx(expected.low, rel=0.01)
        assert interval.high == pytest.approx(expected.high, rel=0.01)
    assert row.p99_interval.high is None


def test_differences_have_their_intervals(two_releases: tuple[Store, list[Trace], list[Trace]]) -> None:
    from scipy import stats

    store, old, new = two_releases
    row = compare(store=store).row("1.1.0")
    errors, latency, tail = row.error_difference, row.latency_difference, row.tail_difference
    assert errors is not None
    assert latency is not None
    assert tail is not None
    assert errors.difference == pytest.approx(34 / 180 - 4 / 178)
    assert (errors.interval.low or 0) < errors.difference < (errors.interval.high or 0)
    before, after = (statistics.median(durations(side)) for side in (old, new))
    ranks = stats.mannwhitneyu(
        *([bucket_of(int(ms * 1000)) for ms in durations(side)] for side in (new, old))
    )
    assert latency.slower_share == pytest.approx(ranks.statistic / (180 * 178))
    assert latency.p50 == pytest.approx(after - before, abs=0.01 * (before + after))
    assert latency.p50_change == pytest.approx(latency.p50 / before, rel=0.03)
    means = [statistics.geometric_mean(durations(side)) for side in (new, old)]
    assert latency.change == pytest.approx(means[0] / means[1] - 1, abs=0.01)
    assert (latency.interval.low or 0) < latency.change < (latency.interval.high or 0)
    slow = [sum(ms > tail.limit for ms in durations(side)) for side in (new, old)]
    assert (tail.share, tail.other_share) == pytest.approx((slow[0] / 180, slow[1] / 178))
    for test in (errors, latency, tail):
        assert test.p_value <= test.p_adjusted


def test_to_dict_is_json(two_releases: tuple[Store, list[Trace], list[Trace]]) -> None:
    store, _, _ = two_releases
    found = compare(store=store).to_dict()
    assert json.loads(json.dumps(found)) == orjson.loads(orjson.dumps(found))
    assert found["rows"][1]["verdict"] == "worse"
    assert set(found["rows"][1]["error_rate_interval"]) == {"low", "high"}


def test_sequential_tests_need_more(store: Store) -> None:
    """What one look finds at p = 0.02 is not enough for one of many; each way of comparing tells which."""
    store.write([*release("1.0.0", 400, errors=8), *release("1.1.0", 400, first=400, errors=24)])
    once, often = (compare(store=store, sequential=sequential) for sequential in (False, True))
    assert [found.row("1.1.0").verdict for found in (once, often)] == [Verdict.WORSE, Verdict.NO_DIFFERENCE]
    assert [found.to_dict()["sequential"] for found in (once, often)] == [False, True]
    errors = [found.row("1.1.0").error_difference for found in (once, often)]
    assert errors[0] is not None
    assert errors[1] is not None
    assert (errors[1].interval.low or 0) < 0 < (errors[0].interval.low or 0)
    assert versions(store=store, sequential=True).sequential


def test_a_value_that_is_not_there_has_no_row(two_releases: tuple[Store, list[Trace], list[Trace]]) -> None:
    store, _, _ = two_releases
    with pytest.raises(KeyError):
        compare(store=store).row("2.0.0")


def test_a_baseline_that_is_not_there_is_named_with_the_nearest(
    two_releases: tuple[Store, list[Trace], list[Trace]],
) -> None:
    store, _, _ = two_releases
    with pytest.raises(FilterError, match=r"app_version '1\.0\.9'; did you mean 1\.0\.0"):
        compare(baseline="1.0.9", store=store)


@pytest.mark.parametrize("confidence", [0, 1, 95])
def test_a_confidence_is_between_0_and_1(store: Store, confidence: float) -> None:
    with pytest.raises(FilterError, match="confidence"):
        compare(store=store, confidence=confidence)


def test_by_default_the_baseline_is_the_first_that_has_traces_enough(store: Store) -> None:
    """A trial of a few traces before the first release is nothing to compare with."""
    store.write([*release("trial", 3), *release("1.0", 40, first=3), *release("1.1", 40, first=50)])
    found = compare(store=store)
    assert found.baseline == "1.0"
    assert found.row("trial").verdict is Verdict.TOO_FEW
    assert found.row("trial").reason == "3 and 40 traces, but 30 of each are needed"
    assert found.row("1.1").verdict is Verdict.NO_DIFFERENCE


def test_where_none_has_enough_the_baseline_is_the_first(store: Store) -> None:
    store.write([*release("1.0", 3), *release("1.1", 29, first=3)])
    found = compare(store=store)
    assert found.baseline == "1.0"
    assert found.row("1.1").verdict is Verdict.TOO_FEW
    assert found.row("1.1").error_difference is None
    assert found.tests == 0


def test_an_empty_store_has_nothing_to_compare(store: Store) -> None:
    found = compare(store=store)
    assert (found.rows, found.baseline, found.left_out) == ((), None, 0)
    assert compare("anything", store=store).rows == ()


def test_a_single_trace(store: Store) -> None:
    store.write([make_trace(0, version="1.0", ms=None)])
    (row,) = compare(store=store).rows
    assert (row.p50, row.p50_interval, row.traces_per_hour) == (None, Interval(None, None), None)


def test_traces_without_the_key_are_counted(store: Store) -> None:
    store.write([make_trace(0, metadata={"tier": "gold"}), make_trace(1), make_trace(2, failed=True)])
    found = compare("tier", store=store)
    assert [(row.value, row.traces) for row in found.rows] == [("gold", 1)]
    assert found.left_out == 2
    assert compare("tier", "status = 'ERROR'", store=store).left_out == 1


@every_engine
def test_values_of_sources_and_of_traces_come_together(store: Store) -> None:
    """Two deployments of a release, and a trace that came from elsewhere with the same version."""
    here = [Source({"tier": "gold", "region": region}) for region in ("eu", "us")]
    without = Source({"region": "asia"})
    store.write(
        [
            make_trace(0, source=here[0]),
            make_trace(1, source=here[1]),
            make_trace(2, source=without, metadata={"tier": "gold"}),
            make_trace(3, source=without, metadata={"tier": "free"}),
            make_trace(4, source=without),
            make_trace(5, source=here[0], metadata={"tier": "free"}),
        ]
    )
    found = compare("tier", store=store)
    assert [(row.value, row.traces) for row in found.rows] == [("gold", 3), ("free", 2)]
    assert found.left_out == 1


COMPARED: dict[str, dict[str, int]] = {
    "name": {"GET /a": 2, "GET /b": 1},
    "trace.name": {"GET /a": 2, "GET /b": 1},
    "attributes.status": {"OK": 2, "ERROR": 1},
    "status": {"OK": 2, "ERROR": 1},
    "user": {"ann": 2},
    "session_id": {"s1": 1, "s2": 1},
    "metadata.mlflow.trace.session": {"s1": 1, "s2": 1},
    "mlflow.trace.user": {"ann": 2},
    "experiment": {"default": 2, "other": 1},
    "environment": {"production": 1},
    "tag.team": {"blue": 2},
    "tags.`the team`": {"red": 1},
    "team": {"blue": 2},
    "the team": {"red": 1},
    "metadata.team": {"green": 1},
    "request_metadata.nobody": {},
    "run_id": {"r1": 1},
    "metadata.mlflow.trace.infoFinalized": {"true": 3},
}


@every_engine
def test_any_field_key_or_tag_can_be_compared_by(store: Store) -> None:
    store.write(
        [
            make_trace(0, name="GET /a", metadata={keys.SESSION: "s1", keys.USER: "ann"}),
            make_trace(
                1,
                name="GET /a",
                tags={"team": "blue", "the team": "red"},
                metadata={keys.SESSION: "s2", keys.USER: "ann", keys.ENVIRONMENT: "production"},
            ),
            make_trace(
                2,
                name="GET /b",
                failed=True,
                experiment="other",
                tags={"team": "blue"},
                metadata={"mlflow.sourceRun": "r1", "metadata.team": "x"},
            ),
            make_trace(3, metadata={"team": "green"}, experiment="third"),
        ]
    )
    for by, values in COMPARED.items():
        found = compare(by, "timestamp <= " + str(START + 2000), store=store)
        if by in {"team", "metadata.team"}:
            found = compare(by, store=store)
            assert {row.value: row.traces for row in found.rows} == {"green": 1}
        else:
            assert {row.value: row.traces for row in found.rows} == values, by
            assert found.left_out == 3 - sum(values.values()), by


NOT_COMPARED = [
    ("tiers", "no trace carries 'tiers'; did you mean tier"),
    ("nam", "no trace carries 'nam'; did you mean name"),
    ("timestamp", "cannot be compared by timestamp"),
    ("execution_time", "cannot be compared by execution_time"),
    ("span.name", "cannot be compared by span.name"),
    ("trace.nam", "no field 'nam'; did you mean name"),
    ("", "no trace carries ''"),
]


def test_what_cannot_be_compared_by_is_an_error(store: Store) -> None:
    store.write([make_trace(0, metadata={"tier": "gold"})])
    for by, message in NOT_COMPARED:
        with pytest.raises(FilterError, match=message):
            compare(by, store=store)


@every_engine
def test_the_filter_and_the_experiment_choose_the_traces(store: Store) -> None:
    eu, us = (Source({keys.APP_VERSION: "1.0", keys.REGION: region}) for region in ("eu", "us"))
    store.write(
        [
            make_trace(0, source=eu),
            make_trace(1, source=us),
            make_trace(2, source=eu, experiment="other"),
            make_trace(3, source=us, failed=True),
        ]
    )

    def count(filter_string: str | None = None, experiment: str | None = None) -> int:
        found = compare(filter_string=filter_string, experiment=experiment, store=store)
        return sum(row.traces for row in found.rows)

    assert count() == 4
    assert count("metadata.region = 'eu'") == 2
    assert count("metadata.region = 'eu'", "default") == 1
    assert count("status = 'ERROR'") == 1
    assert count(experiment="other") == 1
    assert count(experiment="nobody") == 0
    assert count("metadata.region = 'moon'") == 0
    with pytest.raises(FilterError):
        count("metadata.region =")


def test_one_experiment_that_is_all_there_is(store: Store) -> None:
    store.write([make_trace(0, version="1.0")])
    assert compare(experiment="default", store=store).rows[0].traces == 1


@every_engine
def test_token_use_is_summed_where_traces_tell_it(store: Store) -> None:
    told = ['{"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}', '{"input_tokens": 1}']
    odd = ["", "[]", "not json", '{"input_tokens": "many"}', '{"input_tokens": 1e999}', "null"]
    traces = [
        make_trace(place, version="1.0", metadata={keys.TOKEN_USAGE: text})
        for place, text in enumerate([*told, *odd])
    ]
    store.write(
        [*traces, make_trace(50, version="1.1"), make_trace(51, metadata={keys.TOKEN_USAGE: told[0]})]
    )
    found = compare(store=store)
    tokens = found.row("1.0").tokens
    assert tokens is not None
    assert (tokens.traces, tokens.input, tokens.output, tokens.total) == (2, 11, 5, 15)
    assert found.row("1.1").tokens is None


@pytest.fixture(scope="module")
def with_calls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """Two releases: the second one uses half as many tokens again on its chat route, and is liked less."""
    random, traces, given = Random(1), [], []
    for number in range(1600):
        is_new, is_chat = number >= 800, random.random() < 0.6
        metadata = {keys.INSTANCE_ID: f"{is_new}{random.randrange(4)}"}
        if is_chat:
            tokens = int(random.lognormvariate(6.5, 0.5) * (1.5 if is_new else 1))
            metadata[keys.TOKEN_USAGE] = json.dumps({"input_tokens": tokens, "total_tokens": tokens})
            metadata[keys.COST] = json.dumps({"total_cost": 0.004 * random.lognormvariate(0, 0.3)})
        name = "POST /chat" if is_chat else "GET /health"
        traces.append(make_trace(number, version=f"1.{is_new:d}", name=name, metadata=metadata))
        if is_chat and random.random() < 0.5:
            of = traces[-1].info.trace_id
            liked, score = random.random() < (0.6 if is_new else 0.85), random.random()
            given.append(Assessment(trace_id=of, name="helpful", value=liked, assessment_id="a"))
            given.append(Assessment(trace_id=of, name="score", value=score, assessment_id="b"))
    store = open_store(f"sqlite:///{tmp_path_factory.mktemp('calls')}/calls.db")
    store.write(traces)
    store.write_assessments(given)
    yield store
    store.close()


def test_tokens_cost_and_feedback_are_compared_and_decide_no_verdict(with_calls: Store) -> None:
    found = compare(store=with_calls)
    base, row = found.rows
    amounts = {one.measure: one for one in row.amounts}
    assert list(amounts) == ["tokens", "cost", "feedback.helpful", "feedback.score"]
    assert base.amounts[0].difference is None
    assert 440 < base.amounts[0].traces < 520, "of the route that has model calls"
    changes = {name: one.difference for name, one in amounts.items()}
    assert all(changes.values())
    tokens, cost, helpful, score = (one for one in changes.values() if one)
    assert tokens.change == pytest.approx(0.5, abs=0.15)
    assert (tokens.interval.low or 0) < 0.5 < (tokens.interval.high or 0)
    assert tokens.mean / tokens.other_mean - 1 == pytest.approx(tokens.change)
    assert (tokens.direction, cost.direction, helpful.direction) == (1, 0, -1)
    assert amounts["feedback.helpful"].is_share
    assert helpful.change == pytest.approx(-0.25, abs=0.1)
    assert score.p_adjusted > 0.05
    assert row.verdict is Verdict.NO_DIFFERENCE
    assert " tokens a request (+" in row.reason
    assert "; feedback.helpful 57.8 % against 85.1 % (-27.4 points, " in row.reason
    assert "cost" not in row.reason
    assert "score" not in row.reason
    by_feedback = compare("feedback.helpful", store=with_calls).rows[0].amounts
    assert "feedback.helpful" not in {one.measure for one in by_feedback}


def test_amounts_of_the_same_are_seen_in_one_of_twenty_at_most() -> None:
    """Processes whose users ask for more or less: tokens differ between them, and the sides do not."""
    random, wrong = np.random.default_rng(1), 0
    for _ in range(150):
        sides = []
        for side in "ab":
            levels = random.normal(6, 0.1, 5)
            process = random.integers(0, 5, 300)
            values = random.lognormal(levels[process], 0.6).tolist()
            rows = zip(process.tolist(), random.integers(0, 300, 300).tolist(), values, strict=True)
            sides.append([Count("r", f"{side}{p}", t, None, 1, 0, v, v * v) for p, t, v in rows])
        pair = Pair(*(random_group(Random(1), 300, 0.0) for _ in range(2)))
        pair = Pair(replace(pair.group, value="a"), replace(pair.other, value="b"))
        counts = {"tokens": dict(zip("ab", sides, strict=True))}
        (found,) = judge_amounts(counts, [pair], 0.95, anytime=False)["a"]
        assert found.difference is not None
        wrong += found.difference.p_adjusted < 0.05
    assert wrong <= 14  # 7.5 are expected, and more than 14 once in a hundred times


def test_a_baseline_has_no_difference_and_figures_that_are_near_have_more_digits() -> None:
    """Even if a value is the empty text."""
    groups = [replace(random_group(Random(1), 300, 0.0), value=value) for value in ("", "a")]
    counts = {
        group.value: [Count("r", f"{group.value}{p}", p, None, 60, 0, 60 * mean, 70.0) for p in range(5)]
        for group, mean in zip(groups, (0.64, 0.61), strict=True)
    }
    found = judge_amounts({"feedback.score": counts}, [Pair(groups[1], groups[0])], 0.95, anytime=False)
    assert found[""][0].difference is None
    (amount,) = found["a"]
    assert amount.difference is not None
    assert amount_text(amount, amount.difference).startswith("feedback.score 0.61 against 0.64 (-0.03, ")


def test_only_the_values_with_the_most_traces_are_shown(store: Store) -> None:
    count = MAX_VALUES + 5
    store.write([make_trace(n, metadata={"key": f"{n % count}"}) for n in range(2 * count - 5)])
    found = compare("key", store=store)
    assert len(found.rows) == MAX_VALUES
    assert found.other_values == 5
    assert [row.value for row in found.rows] == [str(n) for n in range(count - 5)]


@every_engine
def test_a_candidate_is_compared_with_the_last_before_it(store: Store) -> None:
    """One that has enough traces; rows of other values have no verdict."""
    counts = {"1.0.0": 40, "1.1.0": 40, "1.2.0": 3, "1.3.0": 40}
    first = 0
    for version, count in counts.items():
        store.write(release(version, count, first=first))
        first += count
    with opened(store) as (snapshot, selection):
        newest = compare_candidate(snapshot, selection)
        third = compare_candidate(snapshot, selection, "1.2.0", baseline="1.3.0")
        missing = compare_candidate(snapshot, selection, "9")
        oldest = compare_candidate(snapshot, selection, "1.0.0")
    assert [(row.value, row.against) for row in newest.rows if row.verdict] == [("1.3.0", "1.1.0")]
    assert [(row.value, row.verdict) for row in third.rows if row.verdict] == [("1.2.0", Verdict.TOO_FEW)]
    assert (missing.baseline, [row.verdict for row in missing.rows]) == ("1.3.0", [None] * 4)
    assert (oldest.baseline, [row.verdict for row in oldest.rows]) == (None, [None] * 4)


@every_engine
def test_a_flag_is_compared_with_its_being_off(store: Store) -> None:
    def traces(value: str, first: int, ms: float) -> Iterator[Trace]:
        for trace in release(value, 60, first=first, ms=ms):
            trace.info.trace_metadata["feature_flag_new_retriever"] = value
            yield trace

    store.write([*traces("true", 0, 200), *traces("false", 60, 100)])
    for name in ("new_retriever", "feature_flag_new_retriever"):
        found = flag(name, store=store)
        assert found.by == "feature_flag_new_retriever"
        assert found.baseline == "false"
        assert found.row("true").verdict is Verdict.WORSE
    assert flag("new_retriever", "execution_time > 10000", store=store).rows == ()
    with pytest.raises(FilterError, match="did you mean feature_flag_new_retriever"):
        flag("new_retreiver", store=store)


def test_a_flag_that_is_never_off(store: Store) -> None:
    store.write([make_trace(n, metadata={"feature_flag_theme": "ab"[n % 2]}) for n in range(4)])
    assert flag("theme", store=store).baseline == "a"


@every_engine
def test_a_store_can_be_given_by_its_url_or_by_the_settings(
    new_url: NewUrl, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = new_url()
    store = open_store(url)
    store.write([make_trace(0, version="1.0")])
    store.close()
    assert compare(store=url).rows[0].value == "1.0"
    monkeypatch.setenv("WHEREFROM_STORE", url)
    assert compare().rows[0].value == "1.0"
    monkeypatch.setenv("WHEREFROM_STORE", "none")
    with pytest.raises(StoreError, match="no traces are stored"):
        compare()


@every_engine
def test_what_is_compared_by_never_reaches_the_sql(store: Store) -> None:
    names = ["x'; DROP TABLE traces; --", 'x" y', "x`y", "x$.y", "ключ"]
    store.write([make_trace(0, metadata=dict.fromkeys(names, "a"), tags=dict.fromkeys(names, "b"))])
    for hostile in names:
        with noted(store) as statements:
            for by in (hostile, f"metadata.{hostile}", f"tag.{hostile}"):
                found = compare(by, store=store)
                assert [row.value for row in found.rows] == ["b" if by.startswith("tag.") else "a"]
        assert statements
        assert not [statement for statement, _ in statements if hostile in statement]


KEYS = ("app_version", "tier", "it's", 'say "x"', "back\\slash", "tick`", "a\nb", "🙂", "", keys.SESSION)
VALUES = ("", "a", "A", "1.0", "é", "x'y", "%")
FILTERS: dict[str, Callable[[Trace], bool]] = {
    "": lambda trace: True,
    "status = 'ERROR'": lambda trace: trace.info.state is TraceState.ERROR,
    "metadata.app_version = 'a'": lambda trace: trace.info.trace_metadata.get("app_version") == "a",
    "NOT tag.tier = 'a'": lambda trace: trace.info.tags.get("tier") != "a",
    "metadata.tier IN ('a', 'A') OR name = 'GET /b'": lambda trace: (
        trace.info.trace_metadata.get("tier") in {"a", "A"} or trace.info.name == "GET /b"
    ),
    "session_id = 'a'": lambda trace: trace.info.trace_metadata.get(keys.SESSION) == "a",
    f"timestamp > {START + 50_000} AND execution_time < 100": lambda trace: (
        trace.info.request_time > START + 50_000 and (trace.info.execution_duration or 0) < 100
    ),
    "span.name = 'GET /a'": lambda trace: trace.info.name == "GET /a",
}


@pytest.fixture(scope="module")
def random_store(new_url: NewUrl) -> Iterator[tuple[Store, list[Trace]]]:
    """Traces some of whose pairs come from their source, in any mixture."""
    random = Random(11)

    def some_pairs() -> dict[str, str]:
        return {key: random.choice(VALUES) for key in random.sample(KEYS, random.randrange(6))}

    sources = [Source(some_pairs()) for _ in range(5)]
    traces = [
        make_trace(
            number,
            source=random.choice([*sources, None]),
            ms=random.uniform(1, 200),
            failed=random.random() < 0.3,
            at=START + random.randrange(100) * 1000,
            name=random.choice(["GET /a", "GET /b"]),
            metadata=some_pairs(),
            tags=some_pairs(),
        )
        for number in range(300)
    ]
    with new_store(new_url) as store:
        store.write(traces)
        yield store, traces


@every_engine
@pytest.mark.parametrize("filter_string", FILTERS)
@pytest.mark.parametrize("family", ["metadata", "tag"])
def test_figures_are_those_of_plain_python(
    random_store: tuple[Store, list[Trace]], filter_string: str, family: str
) -> None:
    store, traces = random_store
    passing = [trace for trace in traces if FILTERS[filter_string](trace)]
    asked = KEYS if isinstance(store, SQLiteStore) else KEYS[list(FILTERS).index(filter_string) % 4 :: 4]
    for key in asked:  # of a server, which takes longer, each filter is asked with some of the keys
        having: dict[str, list[Trace]] = {}
        for trace in passing:
            pairs = trace.info.trace_metadata if family == "metadata" else trace.info.tags
            if key in pairs:
                having.setdefault(pairs[key], []).append(trace)
        found = compare(f"{family}.{key}", filter_string, store=store)
        assert {row.value: _figures(row) for row in found.rows} == {
            value: (
                len(traces),
                sum(trace.info.state is TraceState.ERROR for trace in traces),
                pytest.approx(statistics.median(durations(traces)), rel=0.01),
                min(trace.info.request_time for trace in traces),
                max(trace.info.request_time for trace in traces),
            )
            for value, traces in having.items()
        }, key
        assert found.left_out == len(passing) - sum(map(len, having.values())), key


def _figures(row: Row) -> tuple[Any, ...]:
    return row.traces, row.errors, row.p50, row.first_seen, row.last_seen


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


@every_engine
def test_the_first_ever_seen_is_the_baseline_whatever_came_first_in_the_range(store: Store) -> None:
    """Also where a filter states the range, and for keys of traces; other experiments do not count."""
    flag = {f"{keys.FEATURE_FLAG_PREFIX}ranker": "b"}
    old, new = release("1.0", 50), release("2.0", 100, first=200, errors=50)
    late = [make_trace(300 + n, version="1.0") for n in range(100)]
    store.write([*old, *new, *late])
    store.write([make_trace(1000 + n, metadata=flag | {"kind": kind}) for n, kind in enumerate("ab")])
    since = START + 200_000
    found = report("app_version", since=str(since), store=store)
    assert [row.value for row in found.comparison.rows] == ["1.0", "2.0"]
    assert found.comparison.baseline == "1.0"
    assert found.headline == "2.0 is worse than 1.0"
    store.write([make_trace(-50 - n, version="2.0", experiment="tests") for n in range(40)])
    filtered = f"timestamp >= {since}"
    assert compare("app_version", filtered, experiment="default", store=store).baseline == "1.0"
    (_, judged) = versions(filtered, experiment="default", store=store).rows
    assert (judged.value, judged.against, judged.verdict) == ("2.0", "1.0", Verdict.WORSE)
    assert [row.value for row in compare("kind", "timestamp > 0", store=store).rows] == ["a", "b"]


def test_a_report_tells_what_came_in_within_a_time_range(store: Store) -> None:
    store.write(
        [*release("0.9", 50), *release("1.0", 300, first=100), *release("1.1", 300, first=400, errors=60)]
    )
    since, until = str(START + 60_000), str(START + 10_000_000)
    found = report("app_version", "status != 'IN_PROGRESS'", since=since, until=until, store=store)
    assert (found.by, found.filter, found.headline) == (
        "app_version",
        "status != 'IN_PROGRESS'",
        "1.1 is worse than 1.0",
    )
    assert (str(found.since), str(found.until)) == (since, until)
    assert [row.value for row in found.comparison.rows] == ["1.0", "1.1"]
    assert found.comparison.filter_string == "status != 'IN_PROGRESS'"
    assert found.verdicts[0].text.startswith("1.1 is worse than 1.0: error rate 20.0 % against 0.0 %")
    assert [row.filter for row in found.comparison.rows] == [
        "metadata.app_version = '1.0'",
        "metadata.app_version = '1.1'",
    ]
    assert sum(bucket.traces for bucket in found.timeline.buckets) == 600
    assert len({bucket.start for bucket in found.timeline.buckets}) <= STEPS
    assert [one.version for one in found.deployments] == ["1.1", "1.0"]


def test_a_deployment_from_before_is_no_news(store: Store) -> None:
    store.write(release("1.0", 100))
    assert report("app_version", since=str(START + 50_000), store=store).deployments == ()


def test_what_no_filter_asks_for_has_no_conditions(store: Store) -> None:
    store.write(release("1.0", 10))
    assert [row.filter for row in report("experiment_id", store=store).comparison.rows] == [None]


def mixed(version: str, share_of_slow: float, first: int, *, slow_ms: float = 400) -> list[Trace]:
    """600 traces of two routes, of two processes."""
    random = Random(version)
    found = []
    for place in range(600):
        is_slow = random.random() < share_of_slow
        found.append(
            make_trace(
                first + place,
                version=version,
                name="POST /slow" if is_slow else "GET /fast",
                ms=(slow_ms if is_slow else 20) * random.lognormvariate(0, 0.3),
                metadata={"service.instance.id": f"{version}-{place % 2}"},
            )
        )
    return found


def test_a_release_that_mends_fast_failures_is_better_although_slower(tmp_path: Path) -> None:
    """Blocks tell the durations of what failed from those of what did not."""
    random, traces = Random(1), []
    for number in range(400):
        fails = random.random() < (0.05 if number % 2 else 0.4)
        metadata = {keys.INSTANCE_ID: f"{number % 2}{random.randrange(4)}"}
        ms = 1.5 if fails else 100 * random.lognormvariate(0, 0.2)
        traces.append(make_trace(number, version=f"1.{number % 2}", failed=fails, ms=ms, metadata=metadata))
    with closing(open_store(f"sqlite:///{tmp_path}/mended.db")) as store:
        store.write(traces)
        row = compare(store=store).row("1.1")
    assert row.verdict is Verdict.BETTER
    assert "; those that succeeded are not slower" in row.reason


def test_another_mix_of_routes_is_not_worse_and_is_named(store: Store) -> None:
    store.write([*mixed("1", 0.1, 0), *mixed("2", 0.6, 600)])
    row = compare(store=store).row("2")
    assert row.verdict is Verdict.NO_DIFFERENCE
    assert "; the mix changed (" in row.reason
    assert not compare(store=store).is_reweighted  # nothing failed: the rates are the same in any mix
    unlike = compare(store=store, stratify=None).row("2").latency_difference
    assert unlike is not None
    assert unlike.change > 1


def test_rates_of_the_same_mix_are_not_those_of_the_rows(store: Store) -> None:
    """Where one route fails more often, and one release got more of it."""
    traces = [*mixed("1", 0.1, 0), *mixed("2", 0.6, 600)]
    for trace in [trace for trace in traces if trace.info.name == "POST /slow"][::3]:
        trace.info.state = TraceState.ERROR
    store.write(traces)
    assert compare(store=store).is_reweighted
    assert not compare(store=store, stratify=None).is_reweighted


@every_engine
def test_the_route_that_became_slower_is_named(store: Store) -> None:
    store.write([*mixed("1", 0.2, 0), *mixed("2", 0.2, 600, slow_ms=800)])
    row = compare(store=store).row("2")
    assert row.verdict is Verdict.WORSE
    assert [(one.stratum, one.measure, one.direction) for one in row.strata] == [
        ("POST /slow", "durations", 1)
    ]
    assert "POST /slow slower: +" in row.reason


def test_releases_that_share_no_route_are_not_compared(store: Store) -> None:
    store.write([*mixed("1", 0.0, 0), *mixed("2", 1.0, 600)])
    row = compare(store=store).row("2")
    assert row.verdict is Verdict.TOO_FEW
    assert row.reason == "they have too few traces of the same kind to compare like with like"
    assert compare(store=store, stratify=None).row("2").verdict is not Verdict.TOO_FEW


def test_at_once_the_sentence_counts_the_traces_of_both(store: Store) -> None:
    canary = mixed("2", 0.2, 1000)
    for place, trace in enumerate(canary):
        trace.info.request_time = canary[0].info.request_time - 300_000 + 500 * place
    store.write([*mixed("1", 0.2, 400), *canary])
    assert "traces while both had traffic" in compare(store=store).row("2").reason


@pytest.mark.parametrize(
    ("first_ms", "second_ms"), [(900, 1030), (1030, 900), (900, 900), (1030, 1030), (3, 9000)]
)
def test_a_second_of_traffic_is_compared_with_a_second(store: Store, first_ms: int, second_ms: int) -> None:
    """A little more than a second of one and a little less of the other are as two of the same length."""
    random, count = Random(7), 240
    store.write(
        [
            make_trace(
                release * 1000 + number,
                version=f"1.{release}",
                at=START + release * 20_000 + number * took // count,
                name=random.choice(["POST /chat", "POST /chat", "POST /search", "GET /history"]),
                failed=random.random() < share,
                metadata={keys.INSTANCE_ID: f"p{release}"},
            )
            for release, (took, share) in enumerate(((first_ms, 0.02), (second_ms, 0.16)))
            for number in range(count)
        ]
    )
    _, row = compare("app_version", store=store).rows
    assert row.verdict is Verdict.WORSE, row.reason
