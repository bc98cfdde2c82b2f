"""Speed, error and accuracy of the network in bfloat16 and int8: ``python -m benchmarks.precision``."""
