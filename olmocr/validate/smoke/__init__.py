"""Whether a model reads."""
