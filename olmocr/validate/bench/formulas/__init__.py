"""Formulas of a page: found in its text, drawn by a browser, and compared by the positions of their characters."""
