"""Storage: folders at any address, stores (local, S3, fsspec), prefetching, Parquet and checksums."""
