"""A workspace in an object store, or in a folder that several machines see: objects written once, without locks."""
