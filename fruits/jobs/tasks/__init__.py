"""Tasks: functions that run on workers.

A task takes one small item, reads and writes storage, and returns a small report. A task may run twice, or on two
workers at once: it writes the same bytes under the same names. The file that marks an item as finished is always the
last one it writes.
"""
