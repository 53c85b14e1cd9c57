"""PyTorch implementations and machine-checked derivations of the articles of Scientific Spaces (kexue.fm).

Each module stands alone: import what you need, as in ``from kexue_lib.distributions.smooth_topk import grad_topk``.
"""

__version__ = "0.1.0"
