"""Full-text search by BM25, in memory."""
