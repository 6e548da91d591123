"""Evaluation: grading responses and reporting."""
