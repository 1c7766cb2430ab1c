"""OpenFeature: which way each flag went."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from openfeature import api
from openfeature.client import OpenFeatureClient
from openfeature.provider.in_memory_provider import InMemoryFlag, InMemoryProvider

from wherefrom import MemorySink
from wherefrom.integrations.openfeature import FeatureFlagHook

from .apps import within_a_request

FLAGS: dict[str, InMemoryFlag[Any]] = {
    "new-checkout": InMemoryFlag("on", {"on": True, "off": False}),
    "old-search": InMemoryFlag("off", {"on": True, "off": False}),
    "model": InMemoryFlag("large", {"large": "gpt-large", "small": "gpt-small"}),
    "limit": InMemoryFlag("ten", {"ten": 10}),
    "share": InMemoryFlag("half", {"half": 0.5}),
    "colours": InMemoryFlag("set", {"set": {"a": 1}}),
}


@pytest.fixture
def flags() -> Iterator[OpenFeatureClient]:
    api.set_provider(InMemoryProvider(FLAGS))
    api.add_hooks([FeatureFlagHook()])
    yield api.get_client()
    api.clear_hooks()
    api.shutdown()


def recorded(sink: MemorySink) -> dict[str, str]:
    metadata = sink.traces[-1].info.trace_metadata
    return {
        key.removeprefix("feature_flag_"): value
        for key, value in metadata.items()
        if key.startswith("feature_flag_")
    }


async def test_each_evaluation_is_recorded(sink: MemorySink, flags: OpenFeatureClient) -> None:
    """Every type of flag, by the key that the app asked for."""

    async def work() -> None:
        assert flags.get_boolean_value("new-checkout", False) is True
        assert flags.get_boolean_value("old-search", True) is False
        assert flags.get_string_value("model", "") == "gpt-large"
        assert flags.get_integer_value("limit", 0) == 10
        assert flags.get_float_value("share", 0.0) == 0.5
        assert flags.get_object_value("colours", {}) == {"a": 1}

    await within_a_request(work, sink)
    assert recorded(sink) == {
        "new-checkout": "true",
        "old-search": "false",
        "model": "gpt-large",
        "limit": "10",
        "share": "0.5",
        "colours": "{'a': 1}",
    }


async def test_asynchronous_evaluation(sink: MemorySink, flags: OpenFeatureClient) -> None:
    """The asynchronous calls are recorded as the others, several at once too."""

    async def work() -> None:
        await asyncio.gather(
            flags.get_boolean_value_async("new-checkout", False),
            flags.get_string_value_async("model", ""),
            flags.get_integer_value_async("missing", 3),
        )

    await within_a_request(work, sink)
    assert recorded(sink) == {"new-checkout": "true", "model": "gpt-large", "missing": "3"}


async def test_a_default_is_recorded_as_what_was_given(sink: MemorySink, flags: OpenFeatureClient) -> None:
    """Where the evaluation fails the app gets its default, and that is what is recorded."""

    async def work() -> None:
        assert flags.get_boolean_value("missing", True) is True
        assert flags.get_boolean_value("model", False) is False  # a string

    await within_a_request(work, sink)
    assert recorded(sink) == {"missing": "true", "model": "false"}


async def test_the_last_evaluation_counts(sink: MemorySink, flags: OpenFeatureClient) -> None:
    """One flag, asked for twice, is one entry."""

    async def work() -> None:
        flags.get_string_value("missing", "first")
        flags.get_string_value("missing", "second")

    await within_a_request(work, sink)
    assert recorded(sink) == {"missing": "second"}


def test_outside_of_a_trace(flags: OpenFeatureClient) -> None:
    """There the hook does nothing."""
    assert flags.get_boolean_value("new-checkout", False) is True


def test_without_openfeature() -> None:
    """One sentence names the extra."""
    code = "import sys; sys.modules['openfeature'] = None; import wherefrom.integrations.openfeature"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "MissingExtraError: wherefrom.integrations.openfeature needs" in done.stderr
    assert "pip install 'wherefrom[openfeature]'" in done.stderr
