"""A source and pages -> codes that keep what the model makes of pages, and not only its weights."""
