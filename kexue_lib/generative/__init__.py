"""Generative models: diffusion, adversarial training and flows, and the identities that join them."""
