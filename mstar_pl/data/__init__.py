"""Prompt sources, the response format, batches and data modules."""
