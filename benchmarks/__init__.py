"""How fast each part is: every module here measures one, with ``python -m benchmarks.<name>``."""
