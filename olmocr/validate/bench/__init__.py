"""olmOCR-bench: what must be true of a page, and whether it is."""
