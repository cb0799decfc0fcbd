"""Calibrated conversion: rounding by what the inputs of each matrix are like on pages."""
