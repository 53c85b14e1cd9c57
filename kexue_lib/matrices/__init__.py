"""Matrices: how to train and store large matrices through small ones."""
