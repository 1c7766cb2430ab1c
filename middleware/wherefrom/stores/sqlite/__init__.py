"""TODO-DOC sqlite."""
