"""Naive Bayes context extension: the merge against exact posteriors and the reference script, generation against the
whole sequence at every step and against transformers."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from opinfo import as_users_call

from kexue_lib.attention import nbce
from kexue_lib.attention.core import DecoderLM, LMConfig
from kexue_lib.attention.nbce._generation import by_length


def seeded(n=0):
    return torch.Generator().manual_seed(n)


def logits(*shape, seed=0, spread=2.0):
    return spread * torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


# ---- the rule ----------------------------------------------------------------------------------------------------


def test_mean_pooling_with_beta_n_minus_one_is_the_exact_posterior():
    """Enumerate T, S_1, S_2, S_3 with independent likelihoods, and condition by brute force."""
    rng = np.random.default_rng(0)
    prior = rng.dirichlet(np.ones(5))
    likelihood = [rng.dirichlet(np.ones(4), size=5) for _ in range(3)]  # p(S_k | T)
    seen = (2, 0, 3)
    joint = prior * math.prod(likelihood[k][:, s] for k, s in enumerate(seen))
    single = [prior * likelihood[k][:, s] for k, s in enumerate(seen)]
    contexts = torch.from_numpy(np.log(np.stack([p / p.sum() for p in single])))
    out = nbce.nbce_logits(contexts, torch.from_numpy(np.log(prior)), pooling="mean", beta=2, top_p=None)
    np.testing.assert_allclose(out.logits.softmax(-1).numpy(), joint / joint.sum(), rtol=1e-12)


def test_one_relevant_context_is_returned_whole():
    hit, prior = logits(7), logits(7, seed=1)
    for place in range(4):
        rows = prior.expand(4, 7).clone()
        rows[place] = hit
        out = nbce.nbce_logits(rows, prior, pooling="mean", beta=3, top_p=None)
        torch.testing.assert_close(out.logits, hit.log_softmax(-1), rtol=0, atol=1e-12)


def reference_script(scores, *, top_p=0.95, beta=0.25, eta=0.0, previous=None):
    """The rule of github.com/bojone/NBCE on arrays: row 0 is the prior; a cut token has the log-probability −inf."""
    log_p = scores - scores.max(-1, keepdims=True)
    log_p = log_p - np.log(np.exp(log_p).sum(-1, keepdims=True))
    for row in log_p:
        order = np.argsort(-row, kind="stable")
        mass = np.cumsum(np.exp(row[order]))
        row[order[1:][mass[:-1] >= top_p]] = -np.inf
    clipped = np.clip(log_p, -100, 0)
    entropy = -(np.exp(log_p) * clipped).sum(-1)[1:]
    if previous is not None:
        entropy[previous] -= eta
    k = int(entropy.argmin())
    merged = np.where(clipped[0] > -100, (1 + beta) * log_p[k + 1] - beta * clipped[0], log_p[k + 1])
    return merged, k


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(("eta", "previous"), [(0.0, None), (0.7, 2)])
def test_default_is_the_reference_script(seed, eta, previous):
    scores = logits(6, 40, seed=seed)
    merged, k = reference_script(scores.numpy().copy(), eta=eta, previous=previous)
    before = None if previous is None else torch.tensor(previous)
    out = nbce.nbce_logits(scores[1:], scores[0], eta=eta, previous=before)
    np.testing.assert_allclose(out.logits.numpy(), merged, rtol=1e-12)
    assert out.index.item() == k


@pytest.mark.parametrize("alpha", [0.0, 0.5, 3.0])
@pytest.mark.parametrize("pooling", ["mean", "max", "min_entropy", "mixture"])
def test_one_context_is_context_aware_decoding(alpha, pooling):
    context, prior = logits(1, 9), logits(9, seed=1)
    out = nbce.nbce_logits(context, prior, beta=alpha, pooling=pooling, top_p=None).logits
    cad = (1 + alpha) * context[0].log_softmax(-1) - alpha * prior.log_softmax(-1)
    torch.testing.assert_close(out, cad, rtol=0, atol=1e-12)


@pytest.mark.parametrize("pooling", ["mean", "max", "min_entropy", "mixture"])
def test_beta_zero_ignores_and_beta_minus_one_returns_the_prior(pooling):
    contexts, prior = logits(3, 8), logits(8, seed=1)
    alone = nbce.nbce_logits(contexts, pooling=pooling, beta=0).logits
    torch.testing.assert_close(nbce.nbce_logits(contexts, prior, pooling=pooling, beta=0).logits, alone)
    expected = nbce.truncate_log_probs(prior.log_softmax(-1), top_p=0.95)
    for beta in (-1, torch.tensor(-1.0)):
        assert torch.equal(nbce.nbce_logits(contexts, prior, pooling=pooling, beta=beta).logits, expected)


def test_a_tensor_of_betas_is_one_beta_for_each_row():
    contexts, prior, beta = logits(4, 3, 8), logits(4, 8, seed=1), torch.tensor([-1.0, 0.0, 0.5, 4.0])
    whole = nbce.nbce_logits(contexts, prior, beta=beta.double()).logits
    for i, b in enumerate(beta.tolist()):
        torch.testing.assert_close(whole[i], nbce.nbce_logits(contexts[i], prior[i], beta=b).logits)


def test_mixture_weights_follow_the_definition():
    contexts, weights = logits(3, 8), torch.tensor([0.5, 0.0, 1.5], dtype=torch.float64)
    out = nbce.nbce_logits(contexts, pooling="mixture", weights=weights, beta=0, top_p=None).logits
    expected = (weights / 2) @ contexts.softmax(-1)
    torch.testing.assert_close(out, expected.log())
    with pytest.raises(ValueError, match="weights"):
        nbce.nbce_logits(contexts, weights=weights, beta=0)


# ---- masks, ties, -inf, dtypes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("pooling", ["mean", "max", "min_entropy", "mixture"])
def test_absent_contexts_count_nowhere(pooling):
    contexts, prior = logits(2, 4, 8), logits(2, 8, seed=1)
    mask = torch.tensor([[True, False, True, False], [False, True, True, True]])
    spoiled = contexts.masked_fill(~mask[..., None], torch.nan)
    out = nbce.nbce_logits(spoiled, prior, pooling=pooling, context_mask=mask)
    assert out.entropy[~mask].eq(torch.inf).all()
    for i in range(2):
        alone = nbce.nbce_logits(contexts[i, mask[i]], prior[i], pooling=pooling)
        torch.testing.assert_close(out.logits[i], alone.logits)
        if pooling == "min_entropy":
            assert out.index[i] == mask[i].nonzero().flatten()[alone.index]
        else:
            assert out.index[i] == -1


def test_ties_go_to_the_lowest_index_and_eta_keeps_the_previous():
    rows = logits(1, 6).expand(3, 6)
    assert nbce.nbce_logits(rows, beta=0).index == 0
    kept = nbce.nbce_logits(rows, beta=0, eta=1e-6, previous=torch.tensor(2))
    assert kept.index == 2
    assert nbce.nbce_logits(rows, beta=0, eta=1e-6, previous=torch.tensor(-1)).index == 0
    assert nbce.nbce_logits(rows, beta=0, eta=1e-6).index == 0


def test_eta_switches_only_for_more_than_eta():
    p = torch.tensor([[0.6, 0.4], [0.8, 0.2]], dtype=torch.float64)
    gap = (nbce.entropy_of(p.log())[0] - nbce.entropy_of(p.log())[1]).item()
    choose = lambda eta: nbce.nbce_logits(p.log(), beta=0, top_p=None, eta=eta, previous=torch.tensor(0)).index.item()
    assert choose(gap - 1e-9) == 1
    assert choose(gap + 1e-9) == 0


def test_tokens_outside_the_prior_nucleus_keep_the_pooled_value():
    context = torch.tensor([[0.7, 0.2, 0.1]], dtype=torch.float64).log()
    prior = torch.tensor([0.9, 0.08, 0.02], dtype=torch.float64).log()
    out = nbce.nbce_logits(context, prior, beta=0.25, top_p=0.95).logits
    expected = [
        1.25 * math.log(0.7) - 0.25 * math.log(0.9),
        1.25 * math.log(0.2) - 0.25 * math.log(0.08),
        math.log(0.1),
    ]
    torch.testing.assert_close(out, torch.tensor(expected, dtype=torch.float64))


def test_mean_counts_the_floor_where_some_rows_cut_a_token():
    rows = torch.tensor([[0.98, 0.01, 0.01], [0.01, 0.98, 0.01]], dtype=torch.float64).log()
    out = nbce.nbce_logits(rows, pooling="mean", beta=0).logits
    expected = [(math.log(0.98) - 100) / 2] * 2 + [-math.inf]
    torch.testing.assert_close(out, torch.tensor(expected, dtype=torch.float64))


def test_renormalised_rows_sum_to_one_and_have_the_entropy_of_their_own():
    rows = logits(3, 20)
    out = nbce.nbce_logits(rows, beta=0, top_p=0.6, renormalize=True)
    cut = nbce.truncate_log_probs(rows.log_softmax(-1), top_p=0.6)
    for row, entropy in zip(cut.exp().numpy(), out.entropy):
        kept = row[row > 0] / row.sum()
        assert entropy.item() == pytest.approx(-(kept * np.log(kept)).sum(), rel=1e-12)
    assert out.logits.exp().sum().item() == pytest.approx(1)


def test_half_types_give_float32_close_to_float64():
    contexts, prior = logits(5, 4, 30), logits(5, 30, seed=1)
    for dtype in (torch.bfloat16, torch.float16):
        low, low_prior = contexts.to(dtype), prior.to(dtype)
        out = nbce.nbce_logits(low, low_prior, top_p=None)
        assert out.logits.dtype == out.entropy.dtype == torch.float32
        exact = nbce.nbce_logits(low.double(), low_prior.double(), top_p=None)
        torch.testing.assert_close(out.logits.double(), exact.logits, rtol=1e-5, atol=1e-5)
        assert torch.equal(out.index, exact.index)


def test_entropy_ignores_impossible_tokens():
    assert nbce.entropy_of(torch.tensor([-torch.inf, 0.0])) == 0
    assert nbce.entropy_of(torch.tensor([0.2, 0.3]).log()).item() == pytest.approx(
        -(0.2 * math.log(0.2) + 0.3 * math.log(0.3))
    )


def test_compiles_whole_with_masks_and_a_previous_choice():
    contexts, prior, previous = logits(2, 3, 8), logits(2, 8, seed=1), torch.tensor([0, -1])
    mask = torch.tensor([[True, True, False], [True, True, True]])
    call = lambda c, p: nbce.nbce_logits(c, p, eta=0.1, previous=previous, context_mask=mask)
    with as_users_call():
        compiled = torch.compile(call, fullgraph=True, backend="aot_eager")(contexts, prior)
    for actual, expected in zip(compiled, call(contexts, prior)):
        torch.testing.assert_close(actual, expected)


BAD = [
    ({"pooling": "median"}, "pooling"),
    ({"beta": -1.5}, "beta"),
    ({"beta": math.nan}, "beta"),
    ({"top_p": 0.0}, "top_p"),
    ({"top_p": 1.5}, "top_p"),
    ({"top_k": 0}, "top_k"),
    ({"eta": -0.1}, "eta"),
    ({"context_mask": torch.zeros(3, dtype=torch.bool)}, "context_mask"),
]


@pytest.mark.parametrize(("options", "name"), BAD)
def test_bad_options_are_named(options, name):
    with as_users_call(), pytest.raises(ValueError, match=name):
        nbce.nbce_logits(logits(3, 5), logits(5), **options)


def test_bad_logits_are_named():
    with as_users_call():
        with pytest.raises(TypeError, match="context_logits"):
            nbce.nbce_logits(torch.zeros(3, 5, dtype=torch.long), beta=0)
        with pytest.raises(TypeError, match="prior_logits"):
            nbce.nbce_logits(torch.zeros(3, 5), torch.zeros(5, dtype=torch.long))
        with pytest.raises(ValueError, match="context_logits"):
            nbce.nbce_logits(torch.zeros(0, 5), beta=0)
        with pytest.raises(ValueError, match=r"\(6,\).*\(5,\)"):
            nbce.nbce_logits(torch.zeros(3, 5), torch.zeros(6))
        with pytest.raises(ValueError, match="prior_logits"):
            nbce.nbce_logits(torch.zeros(3, 5))


# ---- batches and generation --------------------------------------------------------------------------------------


def ids(length, seed, vocab=29):
    return torch.randint(1, vocab, (length,), generator=seeded(seed))


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


def naive(model, contexts, question, steps, **options):
    """Every row and step anew, unpadded and without a cache."""
    new, previous = question[:0], None
    for _ in range(steps):
        rows = [model(torch.cat([c, question, new])[None])[0, -1] for c in (question[:0], *contexts)]
        out = nbce.nbce_logits(torch.stack(rows[1:]), rows[0], previous=previous, **options)
        new, previous = torch.cat([new, out.logits.argmax(-1, keepdim=True)]), out.index
    return new


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


# ---- the logits processor and transformers -----------------------------------------------------------------------


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


@pytest.mark.parametrize("options", [{}, {"pooling": "mean", "beta": 2.0, "top_p": None}, {"eta": 0.5}])
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


@pytest.mark.parametrize("top_p", [0.5, 0.95])
def test_truncation_agrees_with_transformers(top_p):
    transformers = pytest.importorskip("transformers")
    rows = logits(20, 40).log_softmax(-1)
    theirs = transformers.TopPLogitsWarper(top_p)(None, rows)
    torch.testing.assert_close(nbce.truncate_log_probs(rows, top_p=top_p), theirs)
    theirs = transformers.TopKLogitsWarper(7)(None, rows)
    torch.testing.assert_close(nbce.truncate_log_probs(rows, top_k=7), theirs)
