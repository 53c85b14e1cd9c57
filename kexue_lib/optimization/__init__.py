"""Optimization: what one update, θ ← θ − ηu, is, and what many of them leave."""
