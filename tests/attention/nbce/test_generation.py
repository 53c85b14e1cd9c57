"""Generation against the whole sequence at every step."""

import pytest
import torch
from attention.nbce.random_inputs import ids, naive, seeded
from opinfo import as_users_call

from kexue_lib.attention import nbce
from kexue_lib.attention.core import DecoderLM, LMConfig
from kexue_lib.attention.nbce._generation import by_length


def test_batch_is_left_padded_with_the_empty_context_first():
    bos = torch.tensor([7])
    rows, mask = nbce.nbce_batch(
        [torch.tensor([1, 2, 3]), torch.tensor([4])],
        torch.tensor([9, 8]),
        template=lambda c, q: torch.cat([bos, c, q]),
        pad_id=99,
    )
    assert rows.tolist() == [[99, 99, 99, 7, 9, 8], [7, 1, 2, 3, 9, 8], [99, 99, 7, 4, 9, 8]]
    assert torch.equal(mask.bool(), rows != 99)


@pytest.mark.parametrize("exact", [False, True])
def test_lengths_are_batched_with_little_padding(exact):
    lengths = torch.tensor([3, 100, 97, 3, 99, 5])
    parts = by_length(lengths, exact=exact)
    assert sorted(torch.cat(parts).tolist()) == list(range(6))
    if exact:
        assert all(lengths[p].unique().numel() == 1 for p in parts)
    else:
        assert [sorted(p.tolist()) for p in parts] == [[0, 3, 5], [1, 2, 4]]
        assert len(by_length(torch.tensor([8, 9, 10]))) == 1


CONFIGS = {
    "rope": {},
    "convolution": {"conv_width": 3},
    "alibi": {"positions": "alibi"},
    "learned": {"positions": "learned", "max_len": 64},
}


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("rope", {}),
        ("convolution", {"pooling": "mean", "beta": 2, "top_p": None}),
        ("alibi", {"eta": 0.05, "top_k": 8}),
        ("learned", {"pooling": "max"}),
    ],
)
@torch.no_grad()
def test_padded_cached_generation_is_the_naive_loop(kind, options):
    config = LMConfig(vocab_size=29, d_model=32, n_layers=2, n_heads=2, embed_std=1.0, **CONFIGS[kind])
    model = DecoderLM(config, generator=seeded()).double().eval()
    contexts, question = [ids(n, n) for n in (9, 2, 12, 9)], ids(3, 50)
    expected = naive(model, contexts, question, 5, **options)
    tokens, trace = nbce.generate_nbce(model, contexts, question, max_new_tokens=5, return_trace=True, **options)
    assert torch.equal(tokens, expected)
    assert torch.equal(trace.top_tokens[:, 0], tokens)
    assert trace.entropy.shape == (5, 4)
    adapted = nbce.generate_nbce(nbce.core_adapter(model), contexts, question, max_new_tokens=5, **options)
    assert torch.equal(adapted, expected)


def test_generation_stops_after_eos_and_draws_reproducibly():
    model = DecoderLM(LMConfig(vocab_size=29, d_model=32, n_layers=1, n_heads=2), generator=seeded()).eval()
    contexts, question = [ids(4, 1), ids(6, 2)], ids(2, 3)
    run = lambda **more: nbce.generate_nbce(
        model, contexts, question, max_new_tokens=12, temperature=1.0, generator=seeded(4), **more
    )
    tokens = run()
    assert torch.equal(tokens, run())
    assert torch.equal(run(eos=tokens[3].item()), tokens[: tokens.tolist().index(tokens[3].item()) + 1])


def test_parallel_windows_are_the_block_diagonal_mask():
    model = DecoderLM(LMConfig(vocab_size=29, d_model=32, n_layers=2, n_heads=2, embed_std=1.0), generator=seeded())
    model = model.double().eval()
    contexts, question, steps = [ids(5, 1), ids(3, 2), ids(4, 3)], ids(2, 4), 5
    tokens = nbce.parallel_context_windows(model, contexts, question, max_new_tokens=steps)
    block = torch.cat([torch.full((len(c),), i) for i, c in enumerate(contexts)])
    places = torch.cat([torch.arange(5 - len(c), 5) for c in contexts])
    new = question
    for _ in range(steps):
        whole = torch.cat([*contexts, new])
        group = torch.cat([block, torch.full((len(new),), -1)])
        visible = (group[:, None] == group[None]) | (group[:, None] == -1)
        positions = torch.cat([places, 5 + torch.arange(len(new))])
        with torch.no_grad():
            out = model(whole[None], positions=positions, mask=visible & torch.ones_like(visible).tril())
        new = torch.cat([new, out[0, -1:].argmax(-1)])
    assert torch.equal(tokens, new[len(question) :])


def test_one_window_is_plain_generation():
    config = LMConfig(vocab_size=29, d_model=32, n_layers=2, n_heads=2, conv_width=3, embed_std=1.0)
    model = DecoderLM(config, generator=seeded()).eval()
    context, question = ids(7, 1), ids(2, 2)
    whole = model.generate(torch.cat([context, question])[None], 6)[0, -6:]
    assert torch.equal(nbce.parallel_context_windows(model, [context], question, max_new_tokens=6), whole)
    assert torch.equal(nbce.generate_nbce(model, [context], question, max_new_tokens=6, beta=0, top_p=None), whole)


def test_bad_generation_is_named():
    model = DecoderLM(LMConfig(vocab_size=29, d_model=32, n_layers=1, n_heads=2))
    context, question = ids(3, 1), ids(2, 2)
    with as_users_call():
        for call in (nbce.generate_nbce, nbce.parallel_context_windows):
            with pytest.raises(ValueError, match="contexts"):
                call(model, [], question, max_new_tokens=1)
            with pytest.raises(ValueError, match="max_new_tokens"):
                call(model, [context], question, max_new_tokens=0)
        with pytest.raises(TypeError, match="contexts"):
            nbce.nbce_batch([context.float()], question)
        with pytest.raises(ValueError, match="question"):
            nbce.nbce_batch([context], question[None])
        with pytest.raises(ValueError, match="question"):
            nbce.nbce_batch([context], question[:0])
        with pytest.raises(ValueError, match="contexts"):
            nbce.parallel_context_windows(model, [context[:0]], question, max_new_tokens=1)
        with pytest.raises(TypeError, match="model"):
            nbce.generate_nbce(torch.nn.Linear(2, 2), [context], question, max_new_tokens=1)
