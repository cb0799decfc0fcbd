"""Pages through a source, block by block, forwards and back."""
