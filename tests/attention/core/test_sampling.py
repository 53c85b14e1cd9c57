"""Truncation keeps exactly the tokens of its definition; sampling follows the distribution."""

import pytest
import torch

from kexue_lib.attention.core import sample, truncate_log_probs


def seeded(n=0):
    return torch.Generator().manual_seed(n)


def nucleus(p, top_p, top_k):
    """The definition, token by token, for one distribution."""
    order = sorted(range(len(p)), key=lambda i: (-p[i], i))[: top_k or len(p)]
    total = sum(p[i] for i in order)
    kept, mass = [], 0.0
    for i in order:
        if kept and top_p is not None and mass >= top_p * total - 1e-12:
            break
        kept.append(i)
        mass += p[i]
    return kept


@pytest.mark.parametrize("top_p", [None, 1e-9, 0.3, 0.9, 1.0])
@pytest.mark.parametrize("top_k", [None, 1, 3, 100])
def test_truncation_is_its_definition(top_p, top_k):
    log_p = (2 * torch.randn(20, 12, generator=seeded(), dtype=torch.float64)).log_softmax(-1)
    cut = truncate_log_probs(log_p, top_p=top_p, top_k=top_k)
    for row, out in zip(log_p, cut):
        kept = nucleus(row.exp().tolist(), None if top_p == 1.0 else top_p, top_k)
        assert sorted(kept) == out.isfinite().nonzero().flatten().tolist()
        assert torch.equal(out[kept], row[kept])
    whole = truncate_log_probs(log_p, top_p=top_p, top_k=top_k, renormalize=True)
    torch.testing.assert_close(whole.exp().sum(-1), torch.ones(20, dtype=torch.float64))


def test_ties_keep_the_lower_index_and_minus_infinity_is_never_kept():
    log_p = torch.tensor([-torch.inf, 0.25, 0.25, 0.25, 0.25]).log()
    log_p[0] = -torch.inf
    assert truncate_log_probs(log_p, top_k=2).isfinite().tolist() == [False, True, True, False, False]
    assert truncate_log_probs(log_p, top_p=0.5).isfinite().tolist() == [False, True, True, False, False]


@pytest.mark.parametrize("spread", [0.0, 0.3, 3.0, 30.0])
@pytest.mark.parametrize("top_p", [1e-9, 0.5, 0.95, 1 - 1e-9])
def test_nucleus_of_a_large_vocabulary(spread, top_p):
    """Flat, wide and peaked rows with many ties and some impossible tokens: the selection without a sort."""
    logits = (spread * torch.randn(4, 6000, generator=seeded(), dtype=torch.float64)).round(decimals=1)
    logits[:, ::7] = -torch.inf
    log_p = logits.log_softmax(-1)
    for row, out in zip(log_p, truncate_log_probs(log_p, top_p=top_p)):
        kept = [i for i in nucleus(row.exp().tolist(), top_p, None) if row[i].isfinite()]
        assert sorted(kept) == out.isfinite().nonzero().flatten().tolist()
        assert torch.equal(out[kept], row[kept])


def test_selection_and_sort_agree_and_have_the_same_gradient():
    log_p = (2 * torch.randn(3, 5000, generator=seeded(), dtype=torch.float64)).log_softmax(-1).requires_grad_()
    weights = torch.randn(3, 5000, generator=seeded(1), dtype=torch.float64)
    for options in ({"top_p": 0.9}, {"top_k": 20, "top_p": 0.7}):
        cut = lambda x, o=options: truncate_log_probs(x, **o, renormalize=True)
        loss = lambda x, cut=cut: (weights * cut(x).exp()).sum()
        selected, sorted_ = cut(log_p), torch.func.vmap(cut)(log_p)
        torch.testing.assert_close(selected, sorted_)
        slopes = [torch.autograd.grad(f(log_p), log_p)[0] for f in (loss, lambda x, f=loss: torch.func.vjp(f, x)[0])]
        torch.testing.assert_close(*slopes)


def test_samples_follow_the_distribution():
    logits = torch.tensor([0.0, 1.0, -torch.inf, 2.0])
    for temperature in (1.0, 0.5):
        drawn = sample(logits.expand(200_000, 4), temperature=temperature, generator=seeded())
        share = torch.bincount(drawn, minlength=4) / 200_000
        torch.testing.assert_close(share, (logits / temperature).softmax(-1), rtol=0, atol=5e-3)
        assert share[2] == 0
    assert sample(logits.expand(5, 4), temperature=0.0).tolist() == [3] * 5
    assert torch.equal(
        sample(logits.expand(9, 4), generator=seeded(1)), sample(logits.expand(9, 4), generator=seeded(1))
    )


@pytest.mark.parametrize(("name", "value"), [("top_p", 0.0), ("top_p", 1.5), ("top_k", 0)])
def test_bad_truncation_is_named(name, value):
    with pytest.raises(ValueError, match=name):
        truncate_log_probs(torch.zeros(3), **{name: value})


def test_bad_temperature_is_named():
    with pytest.raises(ValueError, match="temperature"):
        sample(torch.zeros(3), temperature=-1.0)
