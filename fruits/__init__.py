"""Labelled images in, standardised PCA-reduced transfer-learning features out, the same on Dask and on Spark."""
