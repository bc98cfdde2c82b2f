"""Arithmetic whose result does not depend on the CPU, the order of additions or the size of blocks."""
