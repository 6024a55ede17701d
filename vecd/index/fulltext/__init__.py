"""Full-text search with BM25 over an in-memory inverted index."""
