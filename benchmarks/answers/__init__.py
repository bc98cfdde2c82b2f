"""Checks of every run's answer against a reference."""
