"""Attention: the shared attention function, a small decoder language model, and what the chapters build on them."""
