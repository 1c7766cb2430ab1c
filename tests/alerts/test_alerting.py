"""Incidents and their messages: one each, whatever fails, restarts or runs at the same time."""

from __future__ import annotations

import logging
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from wherefrom.alerts.alerting import Alerting, alerting
from wherefrom.stores import Store

from .conftest import MINUTE, NOW, Evaluator, Receiver, Rules, write

PROCESS = """
import sys
from wherefrom.alerts.alerting import Alerting
from wherefrom.stores import open_store
url, file, now = sys.argv[1:]
print("ready", flush=True)
sys.stdin.readline()
for one in Alerting(open_store(url), file, clock=lambda: int(now)).run_once():
    print(one.kind)
"""


def start(store: Store, file: Path, now: int) -> subprocess.Popen[str]:
    """A process that evaluates once when a line is sent to it."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROCESS, store.url, str(file), str(now)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_a_message_is_delivered_once_by_processes_that_restart(
    store: Store, rules: Rules, receiver: Receiver
) -> None:
    """The receiver fails twice; each attempt is another process, after a pause that doubles."""
    write(store, errors=20)
    receiver.statuses = [500, 503]
    file = rules()
    evaluate = Evaluator(store, file)
    said = []
    for now in (NOW, NOW + 5_000, NOW + 15_001):
        said.append(start(store, file, now).communicate("\n")[0].split())
        assert [one.kind for one in evaluate(now + 4_999)] == ["fires"]
    assert said == [["began", "problem"], ["fires", "problem"], ["fires", "sent"]]
    assert len(receiver.accepted) == 1
    assert len(receiver.keys) == 3
    assert len(set(receiver.keys)) == 1
    body = receiver.accepted[0]
    assert body["status"] == "firing"
    assert body["text"] == "20 % of 100 traces in the last 5 min 00 s match status = 'ERROR'"
    assert body["began"] == NOW


def test_of_processes_at_the_same_time_one_delivers(store: Store, rules: Rules, receiver: Receiver) -> None:
    write(store, errors=20)
    file = rules()
    processes = [start(store, file, NOW + place) for place in range(2)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    said = [process.communicate()[0].split() for process in processes]
    assert sorted(kind for kinds in said for kind in kinds) == ["began", "fires", "sent"]
    assert len(receiver.keys) == 1


def test_many_threads_open_one_incident(store: Store, rules: Rules, receiver: Receiver) -> None:
    write(store, errors=20)
    evaluate = Evaluator(store, rules())
    threads = [threading.Thread(target=evaluate, args=(NOW + place,)) for place in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(receiver.keys) == 1


def test_an_incident_ends_when_it_is_quiet_and_another_may_begin(
    store: Store, rules: Rules, receiver: Receiver
) -> None:
    """Quiet for the ``over`` of the rule; then a message tells its end, and the next one has another key."""
    write(store, errors=20)
    evaluate = Evaluator(store, rules("filter = \"status = 'ERROR'\"\nabove = 10\nover = '2m'"))
    kinds = [
        [one.kind for one in evaluate(now)]
        for now in (NOW, NOW + MINUTE, NOW + 3 * MINUTE - 1, NOW + 3 * MINUTE, NOW + 4 * MINUTE)
    ]
    assert kinds == [["began", "sent"], ["fires"], ["quiet"], ["ended", "sent"], ["quiet"]]
    write(store, errors=20, until=NOW + 5 * MINUTE, first=1000)
    assert [one.kind for one in evaluate(NOW + 5 * MINUTE)] == ["began", "sent"]
    assert [body["status"] for body in receiver.accepted] == ["firing", "resolved", "firing"]
    assert len(set(receiver.keys)) == 3
    assert receiver.accepted[1]["last_fired"] == NOW + MINUTE


def test_the_end_is_told_only_after_the_begin(store: Store, rules: Rules, receiver: Receiver) -> None:
    """A receiver that was down for the whole incident gets both messages, in order."""
    write(store, errors=20)
    receiver.statuses = [503] * 2
    evaluate = Evaluator(store, rules("above = 10\nover = '1m'"))
    for now in (NOW, NOW + 2 * MINUTE, NOW + 2 * MINUTE + 9_999):
        evaluate(now)
    assert receiver.accepted == []
    evaluate(NOW + 3 * MINUTE)
    assert [body["status"] for body in receiver.accepted] == ["firing", "resolved"]


def test_a_process_that_dies_while_it_sends_leaves_the_message_due(
    store: Store, rules: Rules, receiver: Receiver
) -> None:
    """After a minute another one sends it, with the same key: a receiver that knows it takes it once."""
    write(store, errors=20)
    file = rules()
    evaluate = Evaluator(store, file)
    receiver.statuses = [503]
    evaluate(NOW)
    message = Alerting(store, str(file)).incidents.claim(["errors"], NOW + 5_000)
    assert message is not None
    evaluate(NOW + 64_999)
    assert len(receiver.keys) == 1
    evaluate(NOW + 65_000)
    assert receiver.keys == [message.key] * 2
    assert len(receiver.accepted) == 1


def test_the_receiver_may_ask_for_a_longer_pause_and_a_day_is_the_end(
    store: Store, rules: Rules, receiver: Receiver
) -> None:
    write(store, errors=20)
    receiver.statuses, receiver.headers = [429] * 9, {"retry-after": "120"}
    evaluate = Evaluator(store, rules("above = 10\nover = '2d'"))
    (_, problem) = evaluate(NOW)
    assert problem.kind == "problem"
    assert problem.text.endswith("/… answered 429: 429 for /…")
    assert [one.kind for one in evaluate(NOW + 119_999)] == ["fires"]
    assert [one.kind for one in evaluate(NOW + 120_000)] == ["fires", "problem"]
    assert [one.kind for one in evaluate(NOW + 24 * 60 * MINUTE)] == ["fires"]


def test_the_link_freezes_what_was_seen(store: Store, rules: Rules, receiver: Receiver) -> None:
    write(store, errors=20)
    Evaluator(store, rules("filter = \"status = 'ERROR'\"\nabove = 1\nwhere = \"name = 'GET /'\""))(NOW)
    link = urlsplit(receiver.accepted[0]["link"])
    assert (link.scheme, link.netloc, link.path) == ("http", "page", "/traces")
    assert parse_qs(link.query) == {
        "filter": ["name = 'GET /' AND status = 'ERROR'"],
        "since": [str(NOW - 5 * MINUTE)],
        "until": [str(NOW)],
    }


def test_what_cannot_be_evaluated_leaves_incidents_alone(
    store: Store, rules: Rules, receiver: Receiver
) -> None:
    write(store, errors=20)
    (problem,) = Evaluator(store, rules("by = 'colour'"))(NOW)
    assert problem.kind == "problem"
    assert problem.text.startswith("cannot be evaluated: no trace carries 'colour'")
    assert receiver.keys == []


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX")
def test_the_state_is_beside_the_store_and_private(store: Store, rules: Rules, tmp_path: Path) -> None:
    """A file of its own, or that of ``state``; none is made before a rule fires."""
    write(store)
    file = rules()
    Evaluator(store, file)(NOW)
    state = tmp_path / "wherefrom-alerts.db"
    assert not state.exists()
    write(store, errors=50, first=1000)
    Evaluator(store, file)(NOW)
    assert stat.S_IMODE(state.stat().st_mode) == 0o600
    named = Alerting(store, str(rules(whole="state = 'other.db'"))).incidents
    assert named.path == tmp_path / "other.db"


def test_the_thread_evaluates_until_it_is_ended(
    store: Store, rules: Rules, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    """A webhook that fails is logged once, without its secret part."""
    write(store, errors=20)
    receiver.statuses = [500] * 9
    alerts = Alerting(store, str(rules(whole="every = '1s'")), clock=lambda: NOW)
    ran = threading.Event()
    run_once = alerts.run_once

    def run() -> list[object]:
        outcomes: list[object] = list(run_once())
        ran.set()
        return outcomes

    alerts.run_once = run  # type: ignore[method-assign, assignment]
    with caplog.at_level(logging.WARNING, "wherefrom"), alerting(alerts):
        assert ran.wait(20)
    assert "alert errors began: 20 % of 100 traces" in caplog.text
    assert "alert errors not delivered yet: http://127.0.0.1:" in caplog.text
    assert "secret" not in caplog.text
    assert not [one for one in threading.enumerate() if one.name == "wherefrom-alerts"]
