"""Measuring: sets of cases, run one by one in their own processes, one record each."""
