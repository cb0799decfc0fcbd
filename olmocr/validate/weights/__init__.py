"""Whether a folder of weights is whole, and how far it is from its source."""
