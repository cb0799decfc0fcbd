"""Finds documents: files, folders, archives, URLs."""
