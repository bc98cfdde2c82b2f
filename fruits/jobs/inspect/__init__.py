"""Read-only views of an output: its progress, its integrity, and its differences from another one."""
