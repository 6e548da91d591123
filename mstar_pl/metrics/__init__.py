"""Metrics: pure functions over outcomes and scores."""
