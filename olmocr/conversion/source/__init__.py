"""What is read from a source before its weights."""
