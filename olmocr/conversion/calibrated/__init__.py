"""A source and pages -> codes that preserve the model's output on pages, not only its weights."""
