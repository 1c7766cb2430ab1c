from __future__ import annotations

import pytest

from wherefrom import keys
from wherefrom.analysis.facets import Facets, count_facets
from wherefrom.model import Source
from wherefrom.stores import Store

from .traffic import START, make_trace

ALL = {"since": str(START - 1), "until": str(START + 10**9)}


def counts(found: Facets) -> dict[str, dict[str, int]]:
    return {facet.title: {value.value: value.traces for value in facet.values} for facet in found.facets}


def filter_of(found: Facets, title: str, value: str) -> str:
    facet = next(facet for facet in found.facets if facet.title == title)
    return next(one.filter for one in facet.values if one.value == value)


@pytest.fixture
def store(store: Store) -> Store:
    europe = Source({keys.APP_VERSION: "1.0", keys.ENVIRONMENT: "production", keys.REGION: "eu"})
    store.write([make_trace(number, source=europe, failed=number < 2) for number in range(5)])
    store.write([make_trace(number, version="1.1", name="POST /") for number in range(5, 8)])
    store.write(
        [make_trace(8, version="1.1", metadata={"feature_flag_new ui": "true", "app_version": "dev"})]
    )
    return store


def test_values_are_counted_by_source_trace_and_flag(store: Store) -> None:
    """What a trace says of itself goes before what its source says."""
    found = count_facets(**ALL, store=store)
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


def test_a_facet_counts_what_it_would_exclude_itself(store: Store) -> None:
    """Other versions can still be chosen; other facets are of the chosen version."""
    found = count_facets("metadata.app_version = '1.0'", **ALL, store=store)
    assert counts(found)["Version"] == {"1.0": 5, "1.1": 3, "dev": 1}
    assert counts(found)["Route"] == {"GET /": 5}
    assert filter_of(found, "Version", "1.0") == ""
    assert filter_of(found, "Version", "1.1") == "metadata.app_version IN ('1.0', '1.1')"
    chosen = [value.value for facet in found.facets for value in facet.values if value.is_selected]
    assert chosen == ["1.0"]


def test_a_chosen_value_that_no_trace_has_can_be_taken_back(store: Store) -> None:
    """It is listed with none."""
    found = count_facets("status = 'IN_PROGRESS'", **ALL, store=store)
    assert counts(found)["State"] == {"OK": 7, "ERROR": 2, "IN_PROGRESS": 0}
    assert filter_of(found, "State", "IN_PROGRESS") == ""
    assert found.traces == 0


def test_the_newest_of_many_are_counted(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """And of many values the most frequent, and how many there are besides."""
    monkeypatch.setattr("wherefrom.analysis.facets.MOST_TRACES", 4)
    monkeypatch.setattr("wherefrom.analysis.facets.MOST_VALUES", 1)
    found = count_facets(**ALL, store=store)
    assert (found.traces, found.is_whole) == (4, False)
    version = next(facet for facet in found.facets if facet.title == "Version")
    assert [value.value for value in version.values] == ["1.1"]
    assert version.others == 1


def test_an_empty_window_or_experiment_has_no_facets(store: Store) -> None:
    """Nothing to choose from."""
    assert count_facets(since="0", until="1", store=store).facets == ()
    assert count_facets(**ALL, experiment="other", store=store).facets == ()
