"""Pages on which a source is looked at while it is quantized: drawn on the spot, or a person's own."""
