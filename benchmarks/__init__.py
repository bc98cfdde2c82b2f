"""Benchmarks of Fruits against other tools: ``fruits bench``, from a source checkout."""
