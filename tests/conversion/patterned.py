"""Sizes of models that the tests of recipes and patterns share."""

BLOCKS = {"layers": 12, "blocks": 4}
