"""Cost and error of the exact numerics of the model: ``python -m benchmarks.numerics``."""
