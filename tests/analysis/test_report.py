"""A comparison with all that belongs to it."""

from __future__ import annotations

from wherefrom.analysis.api import report
from wherefrom.analysis.comparison import STEPS
from wherefrom.stores import Store

from .traffic import START, release


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
    assert found.conditions == {
        "1.0": "metadata.app_version = '1.0'",
        "1.1": "metadata.app_version = '1.1'",
    }
    assert sum(bucket.traces for bucket in found.timeline.buckets) == 600
    assert len({bucket.start for bucket in found.timeline.buckets}) <= STEPS
    assert [one.version for one in found.deployments] == ["1.1", "1.0"]


def test_a_deployment_from_before_is_no_news(store: Store) -> None:
    store.write(release("1.0", 100))
    assert report("app_version", since=str(START + 50_000), store=store).deployments == ()


def test_what_no_filter_asks_for_has_no_conditions(store: Store) -> None:
    store.write(release("1.0", 10))
    assert report("experiment_id", store=store).conditions == {}
