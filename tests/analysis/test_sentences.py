"""Verdicts in words."""

from __future__ import annotations

from wherefrom.analysis import compare, headline, sentence, summary
from wherefrom.stores import Store

from .traffic import release


def test_verdicts_in_whole_sentences(store: Store) -> None:
    store.write(
        [
            *release("1.0", 300),
            *release("1.1", 300, first=300, errors=60),
            *release("1.2", 300, first=600),
            *release("1.3", 300, first=900, ms=20),
            *release("1.4", 10, first=1200),
        ]
    )
    found = compare(store=store)
    said = {row.value: sentence(row) for row in found.rows}
    assert said["1.0"] == ""
    assert said["1.1"].startswith("1.1 is worse than 1.0: error rate 20.0 % against 0.0 %, p < 0.0001")
    assert said["1.1"].endswith("300 and 300 traces.")
    assert said["1.2"].startswith("No difference seen between 1.2 and 1.0: error rate ")
    assert said["1.3"].startswith("1.3 is better than 1.0: faster: ")
    assert said["1.4"] == (
        "Too few traces to judge 1.4 against 1.0: 10 and 300 traces, but 30 of each are needed."
    )
    assert [one.text for one in summary(found)] == [said["1.1"], said["1.3"], said["1.2"], said["1.4"]]


def test_those_alike_are_told_together(store: Store) -> None:
    store.write([trace for n in range(20) for trace in release(f"1.{n:02}", 40, first=40 * n)])
    store.write([trace for n in range(20, 26) for trace in release(f"1.{n}", 40, first=40 * n, errors=40)])
    found = summary(compare(store=store))
    assert [one.text.partition(":")[0] for one in found[:4]] == [
        f"1.{n} is worse than 1.00" for n in (25, 24, 23, 22)
    ]
    assert found[4].text == "Also worse: 1.21 and 1.20."
    assert found[5].text == (
        "No difference seen for 1.19, 1.18, 1.17, 1.16, 1.15, 1.14, 1.13, 1.12, 1.11, 1.10, 1.09, 1.08"
        " and 7 more."
    )


def test_all_of_it_in_one_line(store: Store) -> None:
    assert headline(compare(store=store)) == "no traces"
    store.write(release("1.0", 300))
    assert headline(compare(store=store)) == "nothing to compare with"
    store.write(release("1.1", 10, first=300))
    assert headline(compare(store=store)) == "too few traces"
    store.write(release("1.2", 300, first=600))
    assert headline(compare(store=store)) == "no difference seen"
    store.write(release("1.3", 300, first=900, ms=20))
    assert headline(compare(store=store)) == "1.3 is better than 1.0"
    store.write(release("1.4", 300, first=1200, errors=90))
    assert headline(compare(store=store)) == "1.4 is worse than 1.0"
    store.write(release("1.5", 300, first=1500, errors=90))
    assert headline(compare(store=store)) == "2 of 5 are worse"
