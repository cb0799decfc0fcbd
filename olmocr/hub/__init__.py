"""Reads and writes repositories on the Hub."""
