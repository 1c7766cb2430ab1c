"""The SQLite store: one file, written by any number of processes."""
