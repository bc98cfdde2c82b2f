"""S3: settings, file system, store, and errors in plain English."""
