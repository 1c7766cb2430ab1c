"""Integrations: one module for each package, imported only by those who use it."""
