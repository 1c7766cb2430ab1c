"""Conversations with models: messages, token usage and prices, read from what spans recorded."""
