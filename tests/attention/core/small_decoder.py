"""A small decoder and its inputs."""

import torch

from kexue_lib.attention.core import DecoderLM, LMConfig


def seeded(n=0):
    return torch.Generator().manual_seed(n)


def tiny(**options):
    base = {"vocab_size": 13, "d_model": 24, "n_layers": 2, "n_heads": 4, "embed_std": 0.5}
    return DecoderLM(LMConfig(**{**base, **options}), generator=seeded()).double().eval()


OPTIONS = [
    {},
    {"positions": "none"},
    {"positions": "learned", "max_len": 32},
    {"positions": "sinusoidal"},
    {"positions": "alibi"},
    {"rope_dim": 4, "head_dim": 8},
    {"n_kv_heads": 2, "qk_norm": True},
    {"n_kv_heads": 1, "conv_width": 3, "logit_scale": "log_n", "train_len": 8},
    {"norm": "layer", "bias": True, "ffn": "gelu", "tie_embedding": False},
    {"norm": "none", "ffn": "relu2", "zero_init_residual": True, "conv_width": 1},
]


def tokens(*shape, seed=1, vocab=13):
    return torch.randint(vocab, shape, generator=seeded(seed))
