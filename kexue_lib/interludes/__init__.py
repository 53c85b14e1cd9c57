"""Interludes: two problems from outside machine learning."""
