"""TODO-DOC _capture."""
