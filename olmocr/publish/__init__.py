"""A converted folder and what was measured of it -> a model card, and a repository on the Hub."""
