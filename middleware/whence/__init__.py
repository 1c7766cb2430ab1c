"""Whence: every request a trace that knows whence it came."""
