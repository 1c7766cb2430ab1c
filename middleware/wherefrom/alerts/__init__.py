"""Alerts: rules on the traces of a store, and messages to webhooks, one for each incident."""
