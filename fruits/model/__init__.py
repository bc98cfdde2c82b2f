"""The model: moments of the features, standardisation and PCA, and the tables of rows."""
