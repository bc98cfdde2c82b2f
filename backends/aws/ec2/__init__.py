"""Dask on EC2."""
