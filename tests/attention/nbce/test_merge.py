"""The merge against exact posteriors and the reference script."""

import math

import numpy as np
import pytest
import torch
from attention.nbce.random_inputs import logits
from opinfo import as_users_call

from kexue_lib.attention import nbce

# -- the rule ----------------------------------------------------------------------------------------------------------


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
@pytest.mark.parametrize("pooling", ["mean", "max", "min_entropy", "mixture", "most_changed"])
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


def test_divergence_is_the_mean_of_two_relative_entropies():
    contexts, prior = logits(2, 3, 8), logits(2, 8, seed=1)
    p, q = contexts.softmax(-1), prior.softmax(-1)[:, None]
    middle = (p + q) / 2
    expected = ((p * (p / middle).log()).sum(-1) + (q * (q / middle).log()).sum(-1)) / 2
    torch.testing.assert_close(nbce.divergence(contexts, prior), expected)
    assert nbce.divergence(prior[:, None], prior).abs().max() < 1e-12
    apart = torch.tensor([[1.0, 0.0]]).log(), torch.tensor([0.0, 1.0]).log()
    assert nbce.divergence(*apart).item() == pytest.approx(math.log(2))


def test_most_changed_reads_the_row_farthest_from_the_prior_whole():
    contexts, prior = logits(5, 4, 9), logits(5, 9, seed=1)
    out = nbce.nbce_logits(contexts, prior, pooling="most_changed", beta=0, top_p=None)
    far = nbce.divergence(contexts, prior).argmax(-1)
    assert torch.equal(out.index, far)
    torch.testing.assert_close(out.logits, contexts[torch.arange(5), far].log_softmax(-1))
    # Truncation changes the row that is read, not the choice; beta weighs the prior as in the other poolings.
    cut = nbce.nbce_logits(contexts, prior, pooling="most_changed", beta=0.5, top_p=0.6)
    assert torch.equal(cut.index, far)
    one = contexts[torch.arange(5), far][:, None]
    torch.testing.assert_close(cut.logits, nbce.nbce_logits(one, prior, beta=0.5, top_p=0.6).logits)


def test_eta_above_log_2_keeps_the_first_choice_of_the_most_changed():
    prior = torch.tensor([1.0, 0.0], dtype=torch.float64).log()
    contexts = torch.stack([prior, prior.flip(0)])  # as far apart as two distributions can be
    choose = lambda eta: nbce.nbce_logits(
        contexts, prior, pooling="most_changed", eta=eta, previous=torch.tensor(0)
    ).index.item()
    assert (choose(0.0), choose(0.69), choose(1.0)) == (1, 1, 0)


# -- masks, ties, -inf, dtypes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("pooling", ["mean", "max", "min_entropy", "mixture", "most_changed"])
def test_absent_contexts_count_nowhere(pooling):
    contexts, prior = logits(2, 4, 8), logits(2, 8, seed=1)
    mask = torch.tensor([[True, False, True, False], [False, True, True, True]])
    spoiled = contexts.masked_fill(~mask[..., None], torch.nan)
    out = nbce.nbce_logits(spoiled, prior, pooling=pooling, context_mask=mask)
    assert out.entropy[~mask].eq(torch.inf).all()
    for i in range(2):
        alone = nbce.nbce_logits(contexts[i, mask[i]], prior[i], pooling=pooling)
        torch.testing.assert_close(out.logits[i], alone.logits)
        if pooling in ("min_entropy", "most_changed"):
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


# -- transformers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("top_p", [0.5, 0.95])
def test_truncation_agrees_with_transformers(top_p):
    transformers = pytest.importorskip("transformers")
    rows = logits(20, 40).log_softmax(-1)
    theirs = transformers.TopPLogitsWarper(top_p)(None, rows)
    torch.testing.assert_close(nbce.truncate_log_probs(rows, top_p=top_p), theirs)
    theirs = transformers.TopKLogitsWarper(7)(None, rows)
    torch.testing.assert_close(nbce.truncate_log_probs(rows, top_k=7), theirs)
