"""Evaluation: numbers from predictions, labels left out, and the report as one page."""
