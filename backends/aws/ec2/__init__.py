"""Dask on EC2: launch settings, the cluster, its jobs, and the program on its instances."""
