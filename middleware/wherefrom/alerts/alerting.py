"""Alerting: rules are evaluated on one snapshot, incidents recorded, and messages that are due sent."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from .._sanitize import visible, without_secrets
from ..analysis.scope import opened
from ..analysis.watch import wall_ms
from ..exceptions import FilterError, WherefromError
from ..process import logger
from ..stores import Store
from ..stores.incidents import Incidents
from .delivery import UndeliveredError, send
from .evaluation import Finding, evaluate
from .rules import Rule, Rules, load_rules

_PATIENCE_S: Final = 2.0
_MOST_MESSAGES: Final = 100  # in one pass
_CHANGES: Final[dict[str, Literal["began", "ended"]]] = {"firing": "began", "resolved": "ended"}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a rule or a message; ``text`` is a sentence."""

    rule: str
    kind: Literal["quiet", "fires", "began", "ended", "sent", "problem"]
    text: str


class Alerting:
    """The rules of a file over a store, and their incidents.

    ``page`` is the address of the page where the file of rules names none.

    Raises:
        SettingsError: the file or a rule cannot be used.
    """

    def __init__(
        self, store: Store, path: str, *, page: str | None = None, clock: Callable[[], int] = wall_ms
    ) -> None:
        self.rules = load_rules(path)
        self.incidents = Incidents(self.rules.state or _state_of(store, self.rules))
        self._store = store
        self._page = self.rules.url or page
        self._clock = clock

    def evaluate(self) -> list[tuple[Rule, Finding | FilterError]]:
        """Apply each rule to one snapshot; an error is that of a rule that cannot be evaluated now.

        Raises:
            StoreError: the store cannot be read.
        """
        found: list[tuple[Rule, Finding | FilterError]] = []
        with opened(self._store) as (snapshot, _):
            now = self._clock()
            for rule in self.rules.rules:
                try:
                    found.append((rule, evaluate(snapshot, rule, now)))
                except FilterError as error:
                    found.append((rule, error))
        return found

    def run_once(self) -> list[Outcome]:
        """Evaluate all rules, record their incidents, and send each message that is due once.

        Raises:
            StoreError: the store or the file of incidents cannot be used.
        """
        return [self._record(rule, found) for rule, found in self.evaluate()] + list(self._deliver())

    def _record(self, rule: Rule, found: Finding | FilterError) -> Outcome:
        if isinstance(found, FilterError):
            return Outcome(rule.name, "problem", f"cannot be evaluated: {found}")
        changed = self.incidents.record(
            rule.name,
            found.subject,
            fires=found.fires,
            text=found.text,
            link=found.link,
            now=found.until,
            quiet_ms=rule.over_ms,
            resolved=rule.resolved,
        )
        if changed is not None:
            return Outcome(rule.name, _CHANGES[changed], found.text)
        return Outcome(rule.name, "fires" if found.fires else "quiet", found.text)

    def _deliver(self) -> Iterator[Outcome]:
        rules = {rule.name: rule for rule in self.rules.rules}
        for _ in range(_MOST_MESSAGES):
            message = self.incidents.claim(list(rules), self._clock())
            if message is None:
                return
            name = message.incident.rule
            webhook = rules[name].webhook
            try:
                send(webhook, message, self._page)
            except UndeliveredError as error:
                problem = visible(error)
                self.incidents.postpone(message, self._clock(), problem, error.pause_ms)
                yield Outcome(name, "problem", f"not delivered yet: {problem}")
            else:
                self.incidents.delivered(message, self._clock())
                yield Outcome(name, "sent", f"{message.status}, to {webhook.shown}")


def _state_of(store: Store, rules: Rules) -> Path:
    """Beside the file of the store; of a server, beside the file of the rules."""
    beside = store.path or rules.path
    return beside.with_name(f"{beside.stem}-alerts.db")


@contextmanager
def alerting(alerts: Alerting) -> Iterator[None]:
    """Evaluate the rules in a thread, every ``every`` of their file, until the block ends."""
    is_over = threading.Event()
    thread = threading.Thread(target=_repeat, args=(alerts, is_over), name="wherefrom-alerts", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join(_PATIENCE_S)


def _repeat(alerts: Alerting, is_over: threading.Event) -> None:
    said: dict[str, str] = {}
    while not is_over.is_set():
        try:
            for one in alerts.run_once():
                if one.kind in {"began", "ended"}:
                    logger.warning("alert %s %s: %s", one.rule, one.kind, visible(one.text))
                elif one.kind == "problem" and said.get(one.rule) != one.text:
                    logger.warning("alert %s %s", one.rule, visible(one.text))
                    said[one.rule] = one.text
        except WherefromError as error:
            if said.get("") != str(error):
                logger.warning("alerts cannot be evaluated now: %s", visible(without_secrets(str(error))))
                said[""] = str(error)
        except Exception:  # noqa: BLE001 - the page goes on, whatever a rule does
            logger.exception("alerts failed")
        is_over.wait(alerts.rules.every_s)
