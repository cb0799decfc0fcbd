"""Hugging Face checkpoint -> plan -> quantized MLX folder -> report."""
