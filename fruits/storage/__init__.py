"""Storage: folders at any address, atomic writes, prefetching reads, Parquet and checksums."""
