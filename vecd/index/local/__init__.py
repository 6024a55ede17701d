"""Index structures in this process: one kind per file, and their shared parts."""
