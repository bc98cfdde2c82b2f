"""Images: list them, plan partitions, decode them within bounds, and generate samples."""
