"""Spark on EMR."""
