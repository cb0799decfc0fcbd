"""PDFs and images -> documents: Dolma JSONL and markdown."""
