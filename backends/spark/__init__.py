"""The Spark backend."""
