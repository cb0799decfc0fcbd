"""Tools that say whether answers and models are what they should be."""
