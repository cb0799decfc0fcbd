"""Pages through a source, block by block, forward and back."""
