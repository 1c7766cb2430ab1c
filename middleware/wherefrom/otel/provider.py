"""OpenTelemetry's tracer provider, and the parts of it that the bridge uses."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from opentelemetry import trace as otel
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from ..process import ledger, logger

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.sampling import Sampler


_NAME: Final = "wherefrom"


class Pipeline:
    """The parts of a provider that the bridge uses: its sampler, resource and span processors.

    Tracers of the SDK have them. With another implementation every trace is sampled and nothing listens.
    """

    def __init__(self, provider: otel.TracerProvider, processor: SpanProcessor) -> None:
        release = version(_NAME)
        tracer: Any = provider.get_tracer(_NAME, release)
        # Not the provider itself: it is the weak key of this value, which would keep it alive.
        self._own = provider if isinstance(provider, OwnProvider) else None
        self._processor: SpanProcessor | None = getattr(tracer, "span_processor", None)
        self.sampler: Sampler | None = getattr(tracer, "sampler", None)
        self.resource: Resource | None = getattr(tracer, "resource", None)
        self.scope = InstrumentationScope(_NAME, release)
        register = getattr(provider, "add_span_processor", None)
        if register is None:
            logger.warning(
                "%s takes no span processors: its spans will not be part of our traces",
                type(provider).__name__,
            )
        else:
            register(processor)

    def listeners(self) -> SpanProcessor | None:
        """Return the processor that gets our spans; ``None`` if the provider has no processor but ours."""
        return None if self._own is not None and self._own.processors <= 1 else self._processor


class OwnProvider(TracerProvider):
    """The provider if the app has none. Its first processor is ours; the app may add others."""

    processors = 0

    def add_span_processor(self, span_processor: SpanProcessor) -> None:
        """Add a processor and count it."""
        self.processors += 1
        super().add_span_processor(span_processor)


_pipelines: WeakKeyDictionary[otel.TracerProvider, Pipeline] = WeakKeyDictionary()


def pipeline_of(provider: otel.TracerProvider, processor: SpanProcessor) -> Pipeline:
    """Return the pipeline of a provider, the same for all bridges."""
    pipeline = _pipelines.get(provider)
    if pipeline is None:
        pipeline = _pipelines[provider] = Pipeline(provider, processor)
    return pipeline


def global_provider() -> otel.TracerProvider:
    """Return the global provider: that of the app, or a minimal one."""
    provider = otel.get_tracer_provider()
    if isinstance(provider, otel.ProxyTracerProvider):
        try:
            otel.set_tracer_provider(OwnProvider())
        except Exception as error:  # noqa: BLE001 - what its environment variables ask for may not be there
            ledger.failed("opentelemetry", error)
        provider = otel.get_tracer_provider()
    return provider
