"""Makes pixels of pages."""
