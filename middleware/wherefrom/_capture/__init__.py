"""Copies of values as plain JSON data, bounded in nodes, bytes and depth."""
