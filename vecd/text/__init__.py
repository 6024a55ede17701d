"""Text in, chunks and vectors out. Knows no library, no store, no socket."""
