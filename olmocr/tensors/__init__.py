"""Tensors as safetensors files hold them."""
