"""Named places to run: ``cluster.yaml`` and its models."""
