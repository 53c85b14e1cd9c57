"""Masks of every kind, and heads of two directions against the dense mask."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from attention.decoder_only.random_tokens import causal, generator, normal, tokens
from opinfo import as_users_call

from kexue_lib.attention.core import DecoderLM, LMConfig, attention
from kexue_lib.attention.decoder_only import MixedSelfAttention, head_masks, mixed_attention

# -- masks -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [0, 1, 5])
def test_masks_are_what_their_names_say(n: int):
    i, j = np.indices((n, n))
    assert torch.equal(head_masks("causal", n)[0], torch.from_numpy(j <= i))
    assert torch.equal(head_masks("reverse", n)[0], torch.from_numpy(j >= i))
    assert head_masks("bidirectional", n, n_heads=3).all()
    assert head_masks("bidirectional", n, n_heads=3).shape == (3, n, n)
    mixed = head_masks("mixed", n, n_heads=4)
    assert torch.equal(mixed, torch.stack([causal(n), causal(n), causal(n).mT, causal(n).mT]))
    for p in {0, min(2, n), n}:
        expected = torch.from_numpy((j <= i) | (j < p))
        assert torch.equal(head_masks("prefix", n, prefix=p, n_heads=2), torch.stack([expected, expected]))


def test_every_row_of_a_batch_has_its_own_prefix():
    masks = head_masks("prefix", 4, prefix=torch.tensor([0, 3, 4]), n_heads=2)
    assert masks.shape == (3, 2, 4, 4)
    for row, p in zip(masks, (0, 3, 4)):
        assert torch.equal(row, head_masks("prefix", 4, prefix=p, n_heads=2))
    assert head_masks("prefix", 4, prefix=torch.zeros(0, dtype=torch.long)).shape == (0, 1, 4, 4)


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"kind": "diagonal"}, "kind: got 'diagonal'"),
        ({"kind": "prefix"}, "prefix: got None"),
        ({"kind": "prefix", "prefix": -1}, "prefix: got -1"),
        ({"kind": "prefix", "prefix": 6}, "0 to the length 5"),
        ({"kind": "prefix", "prefix": torch.tensor([1, 6])}, "0 to the length 5"),
        ({"kind": "causal", "prefix": 2}, "only there"),
        ({"kind": "mixed"}, "n_heads: got 1"),
        ({"kind": "mixed", "n_heads": 3}, "n_heads: got 3"),
    ],
)
def test_masks_refuse(kwargs: dict, words: str):
    with as_users_call(), pytest.raises(ValueError, match=words):
        head_masks(kwargs.pop("kind"), 5, **kwargs)


# -- mixed directions --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("H", "Hk"), [(2, 2), (4, 4), (8, 4), (4, 1), (6, 3), (2, 1)])
def test_two_causal_calls_are_the_dense_mask(H: int, Hk: int):
    q, k, v = normal(2, H, 9, 4), normal(2, Hk, 9, 4, seed=2), normal(2, Hk, 9, 5, seed=3)
    dense = attention(q, k, v, mask=head_masks("mixed", 9, n_heads=H))
    torch.testing.assert_close(mixed_attention(q, k, v), dense)


def test_mixed_attention_refuses():
    q = torch.zeros(1, 3, 4, 2)
    with pytest.raises(ValueError, match="n_heads: got 3"):
        mixed_attention(q, q, q)
    with as_users_call(), pytest.raises(ValueError, match="key: got 5 tokens"):
        mixed_attention(torch.zeros(1, 2, 4, 2), torch.zeros(1, 2, 5, 2), torch.zeros(1, 2, 5, 2))
    with pytest.raises(ValueError, match="n_heads: got 1"):
        DecoderLM(LMConfig(vocab_size=3, d_model=4, n_heads=1, causal=False), attention=MixedSelfAttention)
    with pytest.raises(ValueError, match="alibi"):
        DecoderLM(LMConfig(vocab_size=3, d_model=4, n_heads=2, positions="alibi"), attention=MixedSelfAttention)
    encoder = DecoderLM(LMConfig(vocab_size=3, d_model=4, n_heads=2, causal=False), attention=MixedSelfAttention)
    cache = encoder.new_cache(1, 6)
    encoder(torch.zeros(1, 2, dtype=torch.long), cache=cache)
    with pytest.raises(ValueError, match="cache: got 2 stored tokens"):
        encoder(torch.zeros(1, 2, dtype=torch.long), cache=cache)


def test_mixed_encoder_is_the_model_with_the_dense_mask():
    config = LMConfig(vocab_size=13, d_model=16, n_layers=2, n_heads=4, n_kv_heads=2, qk_norm=True, causal=False)
    mixed = DecoderLM(config, attention=MixedSelfAttention, generator=generator()).double()
    plain = DecoderLM(config, generator=generator()).double()
    x = tokens(2, 7)
    torch.testing.assert_close(mixed(x), plain(x, mask=head_masks("mixed", 7, n_heads=4)))
