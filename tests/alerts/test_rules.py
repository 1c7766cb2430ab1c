"""Rules: what they find, and errors that name the rule, the key and what it takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from wherefrom.alerts.evaluation import Finding, evaluate
from wherefrom.alerts.rules import load_rules
from wherefrom.analysis.scope import opened
from wherefrom.exceptions import SettingsError
from wherefrom.stores import Store

from ..analysis.traffic import release
from .conftest import MINUTE, NOW, write

SECRET = "https://hooks.slack.com/services/T0/B0/secret"
HEAD = f"webhook = '{SECRET}'\n[[rule]]\nname = 'slow'\n"


def find(store: Store, tmp_path: Path, rule: str, now: int = NOW) -> Finding:
    file = tmp_path / "rules.toml"
    file.write_text(HEAD + rule)
    (only,) = load_rules(str(file)).rules
    with opened(store) as (snapshot, _):
        return evaluate(snapshot, only, now)


@pytest.mark.parametrize(
    ("rule", "fires", "text"),
    [
        ("above = 99", True, "100 traces in the last 5 min 00 s"),
        ("above = 100", False, "100 traces in the last 5 min 00 s"),
        ("above = 0\nfilter = 'status = error'", True, "10 traces that match status = 'ERROR' in the last 5"),
        ("above = '9%'\nfilter = \"status = 'ERROR'\"", True, "10 % of 100 traces in the last 5 min 00 s"),
        ("above = '10 %'\nfilter = \"status = 'ERROR'\"", False, "10 % of 100 traces"),
        ("above = '9%'\nfilter = \"status = 'ERROR'\"\nmin_traces = 101", False, "10 % of 100 traces"),
        ("above = 'p95 190ms'", True, "p95 19"),
        ("above = 'p95 0.2 s'", False, "p95 19"),
        ("above = 'p50 100ms'\nmin_traces = 101", False, "p50 1"),
        ("above = 40\nover = '30s'", True, "50 traces in the last 30.0 s"),
        ("above = 0\nwhere = \"name = 'other'\"", False, "0 traces in the last 5 min 00 s"),
        ("above = 0\nexperiment = 'other'", False, "0 traces in the last 5 min 00 s"),
    ],
)  # fmt: skip
def test_limits(store: Store, tmp_path: Path, rule: str, fires: bool, text: str) -> None:
    """A hundred traces of the last minute, of which ten failed; durations are 100 to 199 ms."""
    write(store, errors=10)
    found = find(store, tmp_path, rule)
    assert found.fires is fires
    assert found.text.startswith(text)


def test_nothing_fires_without_traces(store: Store, tmp_path: Path) -> None:
    write(store, until=NOW - 60 * MINUTE)
    for rule in ("above = '1%'\nfilter = 'status = error'", "above = 'p95 1ms'", "above = 0"):
        assert not find(store, tmp_path, rule).fires


def test_a_verdict_fires_for_the_newest_release(store: Store, tmp_path: Path) -> None:
    """Its link is the comparison with what it was compared with."""
    store.write([*release("1.0.0", 300, errors=3), *release("1.1.0", 300, first=300, errors=150)])
    found = find(store, tmp_path, "by = 'app_version'", now=NOW + MINUTE)
    assert found.fires
    assert found.subject == "1.1.0"
    assert found.text.startswith("1.1.0 is worse than 1.0.0: error rate 50.0 % against 1.0 %")
    assert found.link.startswith("/compare?since=")
    assert "&by=app_version&baseline=1.0.0" in found.link
    assert not find(store, tmp_path, "candidate = '1.0.0'\nbaseline = '1.1.0'", now=NOW + MINUTE).fires
    assert find(store, tmp_path, "candidate = '9'", now=NOW + MINUTE).text == "There is nothing to compare."


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (
            "above = '5'",
            "rule 'slow': above = '5' cannot be used: it takes a share such as '5%', a number of",
        ),
        ("above = true", "rule 'slow': above = True cannot be used"),
        ("above = '5%'", "rule 'slow': a share needs a filter"),
        ("above = 5\nfilter = 'status ='", "rule 'slow': filter: "),
        ("above = 5\nover = 'soon'", "over = 'soon' cannot be used: it takes a time such as '90s'"),
        ("above = 5\nmin_traces = 0", "min_traces = 0 cannot be used: it takes a number of traces from 1 on"),
        ("abov = 5", "rule 'slow': it takes either 'above'"),
        ("above = 5\nby = 'region'", "rule 'slow': it takes either 'above'"),
        ("above = 5\nfiltr = 'x'", "rule 'slow': nothing is named 'filtr'; did you mean filter?"),
        ("by = 'x'\ncandidate = '1'\nbaseline = '1'", "candidate and baseline are both '1'"),
        ("above = 5\nform = 'email'", "form = 'email' cannot be used: it takes 'json', 'slack' or 'teams'"),
        (
            "above = 5\nwebhook = 'ftp://x/secret'",
            "webhook = (hidden) cannot be used: it takes an http or https",
        ),
        ("above = 5\nwebhook = '$NO_HOOK'", "webhook: the variable 'NO_HOOK' is not set"),
        ("above = 5\nresolved = 'no'", "resolved = 'no' cannot be used: it takes true or false"),
        ("above = 5\n[[rule]]\nabove = 5", "rule number 2: there is no name: it takes a text of 1 to 100"),
        (
            "above = 5\n[[rule]]\nname = 'slow'\nabove = 5",
            "name = 'slow' cannot be used: it takes a text of 1",
        ),
        ("above = ", "cannot be read: Invalid value"),
    ],
)
def test_errors_name_the_rule_and_the_key(tmp_path: Path, rule: str, message: str) -> None:
    file = tmp_path / "rules.toml"
    file.write_text(HEAD + rule)
    with pytest.raises(SettingsError) as raised:
        load_rules(str(file), environ={})
    assert message in str(raised.value)
    assert "rules.toml" in str(raised.value)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rule = 5", "rules.toml: rule = 5 cannot be used: it takes tables, each under [[rule]]"),
        ("every = '0.1s'", "every = '0.1s' cannot be used: it takes a time from '1s' on"),
        (
            "url = 'traces.example'",
            "url = 'traces.example' cannot be used: it takes the http or https address",
        ),
        ("[[rule]]\nname = 'x'\nabove = 1", "rule 'x': there is no webhook: it takes an http or https URL"),
    ],
)
def test_errors_of_the_file(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "rules.toml"
    file.write_text(text)
    with pytest.raises(SettingsError) as raised:
        load_rules(str(file))
    assert message in str(raised.value)
    with pytest.raises(SettingsError, match=r"the alerts in .*none\.toml cannot be read: No such file"):
        load_rules(str(tmp_path / "none.toml"))


def test_a_webhook_is_never_shown(tmp_path: Path) -> None:
    """Nor is one that a variable holds; its path is what lets clients in."""
    file = tmp_path / "rules.toml"
    file.write_text(HEAD + "above = 5\n[[rule]]\nname = 'b'\nabove = 1\nwebhook = '$HOOK'\nform = 'slack'\n")
    rules = load_rules(str(file), environ={"HOOK": "http://127.0.0.1:8000/secret?sig=secret"})
    assert "secret" not in repr(rules)
    shown = [rule.webhook.shown for rule in rules.rules]
    assert shown == ["https://hooks.slack.com/…", "http://127.0.0.1:8000/…"]
    assert [rule.webhook.endpoint.target for rule in rules.rules] == [
        "/services/T0/B0/secret",
        "/secret?sig=secret",
    ]
