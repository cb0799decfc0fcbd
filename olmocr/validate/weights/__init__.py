"""Whether a folder of weights is complete, and how far it is from its source."""
