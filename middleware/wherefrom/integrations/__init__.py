"""Integrations: one module for each package, imported only by its users."""
