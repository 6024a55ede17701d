"""Text processing: chunking, embedding, and analysis for full-text search. Knows no library, no store, no socket."""
