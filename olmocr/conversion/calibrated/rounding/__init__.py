"""A matrix, and the second moments of its inputs -> codes, scales and biases."""
