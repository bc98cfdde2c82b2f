"""Commands of a recogniser."""
