"""Positions: how a sequence model knows where a token stands."""
