"""The ids of experiments in an MLflow server, by their names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from ...exceptions import StoreUnavailableError
from ..http import RefusedError
from .api import MLflowAPI

DEFAULT: Final = "default"
MLFLOW_DEFAULT: Final = "Default"
"""What MLflow calls the experiment of those who name none."""

PATH: Final = "api/2.0/mlflow/experiments"
_ACTIVE: Final = "active"


class Experiments:
    """Finds experiments, and makes those that are missing."""

    def __init__(self, api: MLflowAPI) -> None:
        self._api = api
        self._ids: dict[str, str] = {}
        self._checked: set[str] = set()

    def id_of(self, name: str) -> str:
        """The id of an experiment, made when there is none of that name; remembered.

        Raises:
            StoreUnavailableError: it cannot be had now: the server is out of reach, or it was deleted there.
        """
        if name not in self._ids:
            named = self.named(name)
            self._ids[name] = self.found(named) or self._made(named)
        return self._ids[name]

    @staticmethod
    def named(name: str) -> str:
        """What an experiment of ours is called there."""
        return MLFLOW_DEFAULT if name == DEFAULT else name

    def found(self, name: str) -> str | None:
        """The id of an experiment, ``None`` when there is none of that name.

        Raises:
            StoreUnavailableError: the server is out of reach, or it was deleted there.
        """
        found = self._ask(self._api.find, "get-by-name", {"experiment_name": name})
        return None if found is None else self._active(found["experiment"])

    def check(self, experiment_id: str) -> str:
        """The id, when there is an experiment with it; remembered.

        Raises:
            StoreUnavailableError: there is none now, or the server is out of reach.
        """
        if experiment_id not in self._checked:
            found = self._ask(self._api.get, "get", {"experiment_id": experiment_id})
            self._checked.add(self._active(found["experiment"]))
        return experiment_id

    def forget(self) -> None:
        """Look again next time: one may have been deleted, or another server have taken over."""
        self._ids.clear()
        self._checked.clear()

    def _ask(self, verb: Callable[[str, dict[str, str]], Any], path: str, query: dict[str, str]) -> Any:
        try:
            return verb(f"{PATH}/{path}", query)
        except RefusedError as refusal:  # without an experiment nothing can be sent: wait for a better answer
            raise StoreUnavailableError(str(refusal)) from refusal

    def _made(self, name: str) -> str:
        try:
            return str(self._api.post(f"{PATH}/create", {"name": name})["experiment_id"])
        except RefusedError as refusal:
            # Another worker of the same app was first.
            if (found := self.found(name)) is not None:
                return found
            raise StoreUnavailableError(str(refusal)) from refusal

    def _active(self, experiment: dict[str, Any]) -> str:
        if experiment.get("lifecycle_stage", _ACTIVE) != _ACTIVE:
            told = f"has deleted the experiment {experiment.get('name')!r}: restore it, or name another"
            raise StoreUnavailableError(self._api.told(told))
        return str(experiment["experiment_id"])
