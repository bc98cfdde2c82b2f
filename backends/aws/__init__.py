"""Clusters on AWS: made for a job from the settings of ``cluster.yaml``, followed, and ended after it."""
