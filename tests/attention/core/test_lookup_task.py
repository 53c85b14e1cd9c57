"""The lookup task, and that two layers learn it."""

import pytest
import torch
from attention.core.small_decoder import seeded

from kexue_lib.attention.core import DecoderLM, LMConfig, lookup_accuracy, lookup_batches


@pytest.mark.slow
def test_two_layers_with_a_convolution_learn_to_look_up_pairs():
    from kexue_lib.training import fit

    sample = lookup_batches(keys=8, values=6, pairs=(3, 3), batch_size=32)
    config = LMConfig(vocab_size=16, d_model=32, n_layers=2, n_heads=2, conv_width=3)
    result = fit(
        DecoderLM(config, generator=seeded()), lambda m, b: m.loss(b[0], weights=b[1]), sample, steps=350,
        optimizer=lambda p: torch.optim.AdamW(p, lr=5e-3),
    )  # fmt: skip
    assert result.history["loss"][-20:].mean() < 0.1
    ids, weights = lookup_batches(keys=8, values=6, pairs=(3, 3), batch_size=200)(seeded(99))
    assert lookup_accuracy(result.model.eval(), ids, weights) > 0.97


def test_lookup_weights_mark_the_repeated_values():
    ids, weights = lookup_batches(keys=5, values=4, pairs=(3, 3), batch_size=50)(seeded())
    for row, weight in zip(ids.tolist(), weights):
        table = dict(zip(row[1:7:2], row[2:7:2]))
        assert len(table) == 3
        targets = [(row[i], row[i + 1]) for i in weight.nonzero().flatten().tolist()]
        assert dict(targets) == table
        assert (row[0], row[7]) == (9, 10)
    with pytest.raises(ValueError, match="pairs"):
        lookup_batches(keys=3, pairs=(1, 4))
