"""Sources: where images are, and how they are listed and read."""
