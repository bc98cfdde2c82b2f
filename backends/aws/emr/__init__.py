"""Spark on EMR: requests, clusters, steps, and the files that nodes run."""
