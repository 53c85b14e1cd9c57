"""Distributions: maps from scores to probabilities, and what can be proved of them."""
