"""Rows of a tensor -> codes, scales and biases."""
