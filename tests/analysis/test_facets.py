"""Facets: values with counts, and what a click on one does to the filter."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.engines import NewUrl, every_engine, new_store
from wherefrom import keys
from wherefrom.analysis.facets import Facets, read_facets
from wherefrom.analysis.scope import Window, find_window, opened
from wherefrom.model import Source
from wherefrom.stores import Store

from .traffic import START, make_trace


def count_facets(
    filter_string: str | None = None, *, since: str, until: str, experiment: str | None = None, store: Store
) -> Facets:
    with opened(store, filter_string, experiment) as (snapshot, selection):
        return read_facets(snapshot, selection, find_window(snapshot, since, until), clock=float)


ALL = {"since": str(START - 1), "until": str(START + 10**9)}


def counts(found: Facets) -> dict[str, dict[str, int]]:
    return {facet.title: {value.value: value.traces for value in facet.values} for facet in found.facets}


def filter_of(found: Facets, title: str, value: str) -> str:
    facet = next(facet for facet in found.facets if facet.title == title)
    return next(one.filter for one in facet.values if one.value == value)


@pytest.fixture(scope="module")
def releases(new_url: NewUrl) -> Iterator[Store]:
    europe = Source({keys.APP_VERSION: "1.0", keys.ENVIRONMENT: "production", keys.REGION: "eu"})
    flagged = {"feature_flag_new ui": "true", "app_version": "dev"}
    with new_store(new_url) as store:
        store.write([make_trace(number, source=europe, failed=number < 2) for number in range(5)])
        store.write([make_trace(number, version="1.1", name="POST /") for number in range(5, 8)])
        store.write([make_trace(8, version="1.1", metadata=flagged)])
        yield store


@every_engine
def test_values_are_counted_by_source_trace_and_flag(releases: Store) -> None:
    """A pair of the trace overrides that of its source."""
    found = count_facets(**ALL, store=releases)
    assert counts(found) == {
        "State": {"OK": 7, "ERROR": 2},
        "Route": {"GET /": 6, "POST /": 3},
        "Version": {"1.0": 5, "1.1": 3, "dev": 1},
        "Environment": {"production": 5},
        "Region": {"eu": 5},
        "Flag new ui": {"true": 1},
    }
    assert (found.traces, found.is_whole) == (9, True)
    assert filter_of(found, "Flag new ui", "true") == "metadata.`feature_flag_new ui` = 'true'"


def test_a_facet_counts_what_it_would_exclude_itself(releases: Store) -> None:
    """Other versions can still be chosen; other facets are of the chosen version."""
    found = count_facets("metadata.app_version = '1.0'", **ALL, store=releases)
    assert counts(found)["Version"] == {"1.0": 5, "1.1": 3, "dev": 1}
    assert counts(found)["Route"] == {"GET /": 5}
    assert filter_of(found, "Version", "1.0") == ""
    assert filter_of(found, "Version", "1.1") == "metadata.app_version IN ('1.0', '1.1')"
    chosen = [value.value for facet in found.facets for value in facet.values if value.is_selected]
    assert chosen == ["1.0"]


def test_a_chosen_value_that_no_trace_has_can_be_taken_back(releases: Store) -> None:
    """It is listed with a count of 0."""
    found = count_facets("status = 'IN_PROGRESS'", **ALL, store=releases)
    assert counts(found)["State"] == {"OK": 7, "ERROR": 2, "IN_PROGRESS": 0}
    assert filter_of(found, "State", "IN_PROGRESS") == ""
    assert found.traces == 0


@every_engine
def test_the_newest_of_many_are_counted(releases: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many values, the most frequent are listed, with the number of others."""
    monkeypatch.setattr("wherefrom.analysis.facets.MOST_TRACES", 4)
    monkeypatch.setattr("wherefrom.analysis.facets.MOST_COUNTED", 8)
    monkeypatch.setattr("wherefrom.analysis.facets.MOST_VALUES", 1)
    found = count_facets(**ALL, store=releases)
    assert (found.traces, found.newest, found.is_whole) == (9, 4, False)
    version = next(facet for facet in found.facets if facet.title == "Version")
    assert [value.value for value in version.values] == ["1.1"]
    assert (version.others, version.is_whole) == (1, False)
    chosen = count_facets("metadata.app_version = '1.0'", **ALL, store=releases)
    assert counts(chosen)["Version"] == {"1.1": 3, "1.0": 0}


@every_engine
def test_all_that_match_are_counted_where_that_is_fast(
    releases: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the counts are those of the list, also of a chosen value. Fields of spans have another limit."""
    monkeypatch.setattr("wherefrom.analysis.facets.MOST_TRACES", 2)
    monkeypatch.setattr("wherefrom.analysis.facets.MOST_READ", 3)
    found = count_facets("metadata.app_version = '1.0'", **ALL, store=releases)
    assert (found.traces, found.newest) == (5, 2)
    assert counts(found)["Version"] == {"1.0": 5, "1.1": 3, "dev": 1}
    assert counts(found)["State"] == {"OK": 3, "ERROR": 2}
    clock = iter([0.0, 0.5, *[9.0] * 20])
    with opened(releases, "metadata.app_version = '1.0'") as (snapshot, selection):
        window = Window(START - 1, START + 10**9)
        late = read_facets(snapshot, selection, window, clock=lambda: next(clock))
    assert {facet.title: facet.is_whole for facet in late.facets}.items() >= {
        "State": True,
        "Version": False,
    }.items()


@every_engine
def test_keys_of_the_app_have_a_limit_of_their_own(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The JSON of each trace has to be read for them; above it, the newest are counted."""
    monkeypatch.setattr("wherefrom.analysis.facets.MOST_TRACES", 4)
    monkeypatch.setattr("wherefrom.analysis.facets.MOST_OWN", 5)
    store.write([make_trace(at, version="1.1", metadata={"tenant_id": f"t{at % 2}"}) for at in range(6)])
    found = count_facets(**ALL, store=store)
    assert {facet.title for facet in found.facets if not facet.is_whole} == {"Tenant"}
    assert (counts(found)["Tenant"], counts(found)["Version"]) == ({"t0": 2, "t1": 2}, {"1.1": 6})


@every_engine
def test_the_response_the_model_and_what_an_app_adds_have_facets(store: Store) -> None:
    """Keys that many traces share few values of; ids and keys with one value are none."""
    for number in range(6):
        own = {"tenant_id": f"t{number % 2}", "tier": "gold" if number else "free", "order": f"o{number}"}
        own["wherefrom.models"] = f"m{number % 2}"
        trace = make_trace(number, metadata=own | {"one": "x"}, tags={"team": f"team {number % 3}"})
        trace.data.spans[0].attributes = {
            "http.response.status_code": 500 if number > 3 else 200, "gen_ai.request.model": "m-1",
        } | ({"error.type": "TimeoutError"} if number > 3 else {})  # fmt: skip
        store.write([trace])
    found = counts(count_facets(**ALL, store=store))
    assert {title: found[title] for title in ("HTTP status", "Error type", "Model", "Tenant")} == {
        "HTTP status": {"200": 4, "500": 2},
        "Error type": {"TimeoutError": 2},
        "Model": {"m-1": 6},
        "Tenant": {"t0": 3, "t1": 3},
    }
    assert found["metadata.tier"] == {"gold": 5, "free": 1}
    assert found["tag.team"] == {"team 0": 2, "team 1": 2, "team 2": 2}
    assert "metadata.wherefrom.models" not in found
    assert "metadata.one" not in found


@every_engine
def test_one_value_alone_and_all_others_are_filters_too(releases: Store) -> None:
    """Except where the filter is so long that its links would fill the page."""

    def ways(filter_string: str | None) -> tuple[str | None, str | None]:
        found = count_facets(filter_string, **ALL, store=releases)
        version = next(facet for facet in found.facets if facet.title == "Version")
        return next((one.only, one.exclude) for one in version.values if one.value == "1.0")

    only, others = "metadata.app_version = '1.0'", "metadata.app_version != '1.0'"
    assert ways(None) == (only, others)
    assert ways("metadata.app_version IN ('1.1', '1.0')") == (only, others)
    assert ways("status = 'OK'")[1] == f"status = 'OK' AND {others}"
    assert ways(" OR ".join(["status = 'OK'"] * 40)) == (None, None)


def test_an_empty_window_or_experiment_has_no_facets(releases: Store) -> None:
    """There is no value to choose."""
    assert count_facets(since="0", until="1", store=releases).facets == ()
    assert count_facets(**ALL, experiment="other", store=releases).facets == ()


@every_engine
def test_traces_that_have_been_pruned_are_not_counted(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts of them may be left, but the list does not have them."""
    monkeypatch.setattr("wherefrom.analysis.facets.MOST_TRACES", 2)
    hour = 3_600_000
    begin = START // hour * hour
    store.write([make_trace(number, version="1.0", at=begin + number * hour // 4) for number in range(40)])
    ends = {"since": str(begin), "until": str(begin + 10 * hour)}
    before = count_facets("metadata.app_version = '1.0'", **ends, store=store)
    assert counts(before)["Version"] == {"1.0": 40}
    store.prune(begin + 5 * hour)
    for filter_string in (None, "metadata.app_version = '1.0'"):
        found = count_facets(filter_string, **ends, store=store)
        assert found.traces == 20
        assert (counts(found)["Version"], counts(found)["Route"]) == ({"1.0": 20}, {"GET /": 20})
