"""Recurrence: networks that carry a state, computed in parallel over time."""
