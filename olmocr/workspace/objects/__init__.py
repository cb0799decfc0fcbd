"""A workspace in an object store, or in a folder that several machines see: objects that are written once, no locks."""
