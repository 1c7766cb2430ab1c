"""TODO-DOC tracing."""
