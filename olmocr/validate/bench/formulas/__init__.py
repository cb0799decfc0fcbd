"""Formulas of a page: found in its text, drawn by a browser, and compared by where their characters stand."""
