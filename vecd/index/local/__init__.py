"""Index structures in this process: one kind a file, and what they share."""
