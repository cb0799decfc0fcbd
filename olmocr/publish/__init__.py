"""A converted folder and its measurements -> a model card, and a repository on the Hub."""
