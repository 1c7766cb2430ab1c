"""Deployments: their processes, time ranges, error rates and latencies."""

from __future__ import annotations

from typing import Any

import pytest

from tests.engines import every_engine
from wherefrom import FilterError, Trace, TraceClient, keys
from wherefrom.analysis import deployments
from wherefrom.analysis.deployments import MOST_DEPLOYMENTS
from wherefrom.analysis.statistics import quantile
from wherefrom.model import Source
from wherefrom.stores import Store

from .traffic import START, make_trace

HOUR = 3_600_000


def source(version: str, deployment: str = "deploy-1", **others: str) -> Source:
    return Source({keys.APP_VERSION: version, keys.DEPLOYMENT_ID: deployment, **others})


def sent(source: Source, *seconds: int, first: int = 0, **facts: Any) -> list[Trace]:
    return [make_trace(first + at, source=source, at=START + at * 1000, **facts) for at in seconds]


@every_engine
def test_a_deployment_is_told_with_its_figures(store: Store) -> None:
    own = source(
        "1.0",
        **{
            keys.REGION: "eu",
            keys.ENVIRONMENT: "production",
            keys.GIT_COMMIT: "abc",
            keys.GIT_BRANCH: "main",
            keys.GIT_REPO_URL: "https://example.com/x.git",
            keys.GIT_DIRTY: "true",
        },
    )
    store.write([*sent(own, *range(1, 20), ms=100), *sent(own, 20, ms=500, failed=True)])
    (found,) = deployments(store=store).found
    assert (found.version, found.deployment_id, found.region, found.environment) == (
        "1.0",
        "deploy-1",
        "eu",
        "production",
    )
    assert (found.commit, found.branch, found.repository) == ("abc", "main", "https://example.com/x.git")
    assert found.is_dirty
    assert (found.traces, found.errors, found.error_rate, found.sources) == (20, 1, 0.05, 1)
    assert (found.first_seen, found.last_seen) == (START + 1000, START + 20_000)
    assert found.p95_ms == pytest.approx(quantile([100.0] * 19 + [500.0], 0.95), rel=0.01)
    assert found.error_rate_interval.low is not None
    assert 0 < found.error_rate_interval.low < 0.05
    assert found.name == "deploy-1 · 1.0"


def test_processes_that_differ_in_other_things_are_one_deployment(store: Store) -> None:
    store.write([*sent(source("1.0", pod="a"), 1, 2), *sent(source("1.0", pod="b"), 3, first=10)])
    store.write(sent(source("1.0", "deploy-2"), 0, first=20))
    first, second = deployments(store=store).found
    assert (first.deployment_id, first.sources, first.traces) == ("deploy-1", 2, 3)
    assert (first.first_seen, first.last_seen) == (START + 1000, START + 3000)
    assert (second.deployment_id, second.sources, second.traces) == ("deploy-2", 1, 1)


@every_engine
def test_counts_are_of_the_window_and_ends_of_all_time(store: Store) -> None:
    own = source("1.0")
    store.write([*sent(own, 0, failed=True), *sent(own, 3600, 7200, first=1)])
    store.write(sent(source("0.9"), 1, first=9))
    found = deployments(str(START + HOUR), str(START + 2 * HOUR), store=store)
    assert (found.window.since, found.window.until) == (START + HOUR, START + 2 * HOUR)
    (only,) = found.found
    assert (only.version, only.traces, only.errors) == ("1.0", 1, 0)
    assert (only.first_seen, only.last_seen) == (START, START + 2 * HOUR)


@every_engine
def test_the_filter_of_a_deployment_finds_its_traces(store: Store) -> None:
    store.write([*sent(source("1.0", "it's"), 1, 2), *sent(source("1.0", "other"), 3, first=10)])
    store.write(sent(Source({keys.REGION: "eu"}), 4, first=20))
    client = TraceClient(store)
    counts = {one.deployment_id: one for one in deployments(store=store).found}
    assert len(client.search_traces(filter_string=counts["it's"].filter)) == 2
    assert len(client.search_traces(filter_string=counts["other"].filter)) == 1
    assert counts[None].filter == "metadata.region = 'eu'"


@pytest.mark.parametrize(
    ("pairs", "name"),
    [
        ({keys.DEPLOYMENT_ID: "unknown", keys.APP_VERSION: "1.0"}, "1.0"),
        ({keys.DEPLOYMENT_ID: "d"}, "d"),
        ({keys.DEPLOYMENT_ID: "unknown", keys.GIT_COMMIT: "0123456789abcdef"}, "0123456789ab"),
        ({}, "unknown"),
    ],
)
def test_what_a_deployment_is_called(store: Store, pairs: dict[str, str], name: str) -> None:
    store.write(sent(Source(pairs), 1))
    (found,) = deployments(store=store).found
    assert found.name == name


def test_an_experiment_is_told_alone(store: Store) -> None:
    own = source("1.0")
    store.write([*sent(own, 1), *sent(own, 2, first=5, experiment="other")])
    assert [one.traces for one in deployments(experiment="other", store=store).found] == [1]
    assert deployments(experiment="nobody", store=store).found == ()


def test_of_very_many_the_latest_are_told(store: Store) -> None:
    count = MOST_DEPLOYMENTS + 3
    store.write([trace for n in range(count) for trace in sent(source(f"1.{n}"), n)])
    found = deployments(store=store)
    assert (len(found.found), found.others) == (MOST_DEPLOYMENTS, 3)
    assert found.found[0].version == f"1.{count - 1}"


def test_without_durations_there_is_no_p95(store: Store) -> None:
    store.write(sent(source("1.0"), 1, ms=None))
    assert deployments(store=store).found[0].p95_ms is None
    with pytest.raises(FilterError):
        deployments("never", store=store)
