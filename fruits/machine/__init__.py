"""The machine: its CPUs, and Python processes on it."""
