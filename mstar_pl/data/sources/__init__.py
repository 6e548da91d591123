"""Prompts from the published data sets, one small class each."""
