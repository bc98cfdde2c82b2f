"""S3: its settings, its file system, and plain-language errors."""
