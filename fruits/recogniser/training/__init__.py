"""Training: from class moments and a bounded sample of rows to a recogniser, with the same bits on every CPU."""
