"""What is read of a source before any of its weights."""
