"""The four reports, as data."""
