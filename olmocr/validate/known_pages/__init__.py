"""Pages whose true text is known."""
