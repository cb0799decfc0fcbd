"""Pages used to look at a source while it is quantized: drawn on the spot, or the user's own."""
