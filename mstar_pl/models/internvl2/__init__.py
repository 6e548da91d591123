"""Conversion of published InternVL2 checkpoints with InternLM2 (2B, 8B) to the native architecture."""
