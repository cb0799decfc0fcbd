"""One pass over the language model's weights."""
