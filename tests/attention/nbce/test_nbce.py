"""The logits processor, alone and inside transformers."""

import subprocess
import sys

import pytest
import torch
from attention.nbce.random_inputs import ids, logits, naive, seeded

from kexue_lib.attention import nbce


def test_processor_gives_each_group_the_same_scores():
    scores = logits(8, 11)
    process = nbce.NBCELogitsProcessor(3)
    merged = process(torch.zeros(8, 1, dtype=torch.long), scores)
    for g in range(2):
        out = nbce.nbce_logits(scores[4 * g + 1 : 4 * g + 4], scores[4 * g])
        torch.testing.assert_close(merged[4 * g : 4 * g + 4], out.logits.expand(4, 11))
        assert process.indices[0][g] == out.index
    process.reset()
    assert process.indices == []
    assert process.divergence is None


def test_processor_draws_one_token_for_a_group_with_the_merged_probabilities():
    scores = logits(3, 4)
    process = nbce.NBCELogitsProcessor(2, do_sample=True, temperature=2.0, generator=seeded(), top_p=None)
    many = process(torch.zeros(3 * 40_000, 1, dtype=torch.long), scores.repeat(40_000, 1)).unflatten(0, (-1, 3))
    assert torch.equal(many[:, 0], many[:, 2])
    assert many.eq(0).sum(-1).eq(1).all()
    share = many[:, 0].argmax(-1).bincount(minlength=4) / 40_000
    expected = (nbce.nbce_logits(scores[1:], scores[0], top_p=None).logits / 2).softmax(-1)
    torch.testing.assert_close(share.double(), expected, rtol=0, atol=0.01)


def test_processor_keeps_the_previous_choice_of_each_group():
    scores = logits(6, 11)
    first = nbce.NBCELogitsProcessor(2)
    first(torch.zeros(6, 1, dtype=torch.long), scores)
    kept = nbce.NBCELogitsProcessor(2, eta=100.0)
    kept(torch.zeros(6, 1, dtype=torch.long), scores)
    kept(torch.zeros(6, 1, dtype=torch.long), logits(6, 11, seed=3))
    assert torch.equal(kept.indices[1], first.indices[0])


def test_bad_rows_are_named():
    with pytest.raises(ValueError, match="n_contexts"):
        nbce.NBCELogitsProcessor(0)
    process = nbce.NBCELogitsProcessor(2)
    with pytest.raises(ValueError, match="5 rows"):
        process(torch.zeros(5, 1, dtype=torch.long), logits(5, 4))
    process(torch.zeros(3, 1, dtype=torch.long), logits(3, 4))
    with pytest.raises(ValueError, match="reset"):
        process(torch.zeros(6, 1, dtype=torch.long), logits(6, 4))


def test_transformers_is_not_imported():
    code = "import sys, kexue_lib.attention.nbce as n; n.NBCELogitsProcessor(1); print('transformers' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"


@pytest.fixture(scope="module")
def llama():
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=50, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=128, bos_token_id=None, eos_token_id=None, pad_token_id=0, initializer_range=0.3,
    )  # fmt: skip
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(config).eval()


@pytest.mark.parametrize(
    "options",
    [{}, {"pooling": "mean", "beta": 2.0, "top_p": None}, {"eta": 0.5}, {"pooling": "most_changed", "eta": 1.0}],
)
def test_processor_in_generate_is_our_loop(llama, options):
    contexts, question = [ids(n, n, 50) for n in (7, 12, 9)], ids(4, 1, 50)
    tokens, trace = nbce.generate_nbce(llama, contexts, question, max_new_tokens=10, return_trace=True, **options)
    rows, mask = nbce.nbce_batch(contexts, question)
    process = nbce.NBCELogitsProcessor(3, **options)
    assert isinstance(process, sys.modules["transformers"].LogitsProcessor)
    out = llama.generate(
        input_ids=rows.repeat(2, 1), attention_mask=mask.repeat(2, 1), max_new_tokens=10, do_sample=False,
        logits_processor=[process], pad_token_id=0,
    )[:, rows.shape[1] :]  # fmt: skip
    assert torch.equal(out, tokens.expand(8, 10))
    assert torch.equal(torch.stack(process.indices)[:, 1], trace.index)
    torch.testing.assert_close(process.divergence[1], trace.divergence[0], rtol=1e-4, atol=1e-6)
    if options.get("pooling") == "most_changed":
        assert trace.index.eq(trace.divergence[0].argmax()).all()  # picked once


@torch.no_grad()
def test_adapter_is_the_unpadded_model(llama):
    contexts, question = [ids(n, n, 50) for n in (20, 3, 19)], ids(4, 1, 50)
    model = lambda rows: llama(input_ids=rows).logits
    expected = naive(model, contexts, question, 6)
    assert torch.equal(nbce.generate_nbce(llama, contexts, question, max_new_tokens=6), expected)


def test_sampling_in_generate_keeps_the_rows_in_step(llama):
    contexts, question = [ids(n, n, 50) for n in (7, 12)], ids(4, 1, 50)
    rows, mask = nbce.nbce_batch(contexts, question)
    process = nbce.NBCELogitsProcessor(2, do_sample=True, generator=seeded(2))
    out = llama.generate(
        input_ids=rows, attention_mask=mask, max_new_tokens=8, do_sample=False, logits_processor=[process],
        pad_token_id=0,
    )[:, rows.shape[1] :]  # fmt: skip
    ours = nbce.generate_nbce(llama, contexts, question, max_new_tokens=8, temperature=1.0, generator=seeded(2))
    assert out.unique(dim=0).shape[0] == 1
    assert torch.equal(out[0], ours)
