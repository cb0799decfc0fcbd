"""How far a model is from its source on pages."""
