"""Progress reporting: the listener protocol, reporters for people and programs, and heartbeats."""
