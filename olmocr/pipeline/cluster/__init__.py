"""Many machines under one run: a run here, and readers of pages on machines that Ray brings together."""
