"""Rollout engines: where responses are sampled from a policy."""
