"""Sources that are tables: manifests of images, inventories of S3, and Parquet files that contain images."""
