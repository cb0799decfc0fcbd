"""Turns pages into pixels."""
