"""Noise, entropy and long attention, checked against dense attention, enumeration, sampling and 50-digit arithmetic."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys

import mpmath
import pytest
import torch
from attention.ops_softmax_robustness import bessel_deficit, exponential_cv2, specht
from opinfo import as_users_call
from scipy import stats
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from kexue_lib.attention.softmax_robustness import (
    attention_average,
    attention_stats,
    cosine_entropy_deficit,
    cosine_entropy_min,
    effective_number,
    entropy_invariant_scale,
    gaussian_entropy,
    noise_cv2,
    perturbation_moments,
    perturbed_attention,
    sample_noise,
    softmax_entropy,
    sphere_entropy_deficit,
)
from kexue_lib.attention.softmax_robustness._stats import AttentionStats

LIGHT = ("gaussian", "uniform", "laplace", "gumbel")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=seeded(seed)).to(dtype)


def dense(q: Tensor, k: Tensor, v: Tensor, scale: float | Tensor | None = None, visible: Tensor | None = None):
    """Attention with all scores at once, in float64."""
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    s = q.double() @ k.double().mT * (scale.double()[..., None] if isinstance(scale, Tensor) else scale)
    visible = torch.ones((), dtype=torch.bool) if visible is None else visible
    alive = visible.expand(s.shape).any(-1)
    s = s.masked_fill(~visible & alive[..., None], -math.inf)
    p = s.softmax(-1)
    results = (
        p @ v.double(),
        s.logsumexp(-1),
        s.logsumexp(-1) - (p * s.masked_fill(p == 0, 0.0)).sum(-1),
        1 / p.square().sum(-1),
    )
    return AttentionStats(
        *(
            torch.where(alive.view(*alive.shape, *(1,) * (i == 0)), x, -math.inf if i == 1 else 0.0)
            for i, x in enumerate(results)
        )
    )


def close(actual: AttentionStats, expected: AttentionStats, bound: float = 1e-11) -> None:
    for a, e in zip(actual, expected):
        torch.testing.assert_close(a.double(), e, rtol=bound, atol=bound)


# -- entropy and effective number --------------------------------------------------------------------------------------


def test_entropy_is_zero_without_nan_where_nothing_or_one_is_kept():
    x = normal(4, 5).requires_grad_()
    mask = torch.tensor([[False] * 5, [True] + [False] * 4, [True] * 5, [True, True, False, False, False]])
    h = softmax_entropy(x, mask=mask)
    assert h[:2].tolist() == [0.0, 0.0]
    for row in (2, 3):
        kept = x[row][mask[row]].detach().softmax(-1)
        torch.testing.assert_close(h[row].detach(), torch.tensor(stats.entropy(kept), dtype=torch.float64))
    (grad,) = torch.autograd.grad(h.sum(), x)
    assert grad.isfinite().all()
    assert (grad[~mask] == 0).all()


def test_entropy_reduces_any_dim_and_ignores_shifts():
    x = normal(3, 4, 5)
    torch.testing.assert_close(softmax_entropy(x, dim=1), softmax_entropy(x.mT))
    torch.testing.assert_close(softmax_entropy(x + 1e6), softmax_entropy(x), rtol=1e-8, atol=1e-8)
    assert effective_number(x, dim=0).shape == (4, 5)


def test_infinite_logits_share_everything():
    x = torch.tensor([math.inf, 1.0, math.inf, -math.inf])
    assert softmax_entropy(x).exp().item() == pytest.approx(2)
    assert effective_number(x).item() == pytest.approx(2)


def test_effective_number_lies_between_one_and_the_perplexity():
    x = 3 * normal(200, 7)
    number = effective_number(x)
    assert (number >= 1 - 1e-12).all()
    assert (number <= softmax_entropy(x).exp() + 1e-9).all()


# -- noise -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LIGHT)
def test_cv2_to_twelve_digits_for_every_size_of_noise(name: str):
    for sigma in (1e-8, 1e-4, 0.01, 0.09, 0.11, 0.2, 0.38, 0.6, 1.7, 1.8):
        with mpmath.workdps(50):
            s = mpmath.mpf(sigma)
            finite = {"laplace": s / mpmath.sqrt(2), "gumbel": mpmath.sqrt(6) / mpmath.pi * s}.get(name, 0) < 0.5
            expected = float(exponential_cv2(name)(s)) if finite else math.inf
        assert noise_cv2(name, sigma).item() == pytest.approx(expected, rel=1e-12)


def test_cv2_of_heavy_tails_is_infinite_and_of_no_noise_zero():
    for name in (*LIGHT, "student_t"):
        assert noise_cv2(name, 0.0).item() == 0
    assert noise_cv2("student_t", 1e-9).item() == math.inf
    assert noise_cv2("laplace", math.sqrt(0.5)).item() == math.inf
    assert noise_cv2("gumbel", math.pi / math.sqrt(24) + 1e-12).item() == math.inf
    assert noise_cv2("uniform", torch.tensor([[0.1], [1000.0]])).shape == (2, 1)


@pytest.mark.parametrize(
    ("name", "law"),
    [
        ("gaussian", stats.norm(0, 0.7)),
        ("uniform", stats.uniform(-0.7 * math.sqrt(3), 1.4 * math.sqrt(3))),
        ("laplace", stats.laplace(0, 0.7 / math.sqrt(2))),
        ("gumbel", stats.gumbel_r(-0.5772156649 * 0.7 * math.sqrt(6) / math.pi, 0.7 * math.sqrt(6) / math.pi)),
        ("student_t", stats.t(3.0, 0, 0.7)),
    ],
)
def test_samples_follow_the_distribution(name: str, law):
    x = sample_noise((4000,), name, 0.7, dtype=torch.float64, generator=seeded(1))
    assert stats.kstest(x.numpy(), law.cdf).pvalue > 1e-3
    if name != "student_t":
        assert law.mean() == pytest.approx(0, abs=1e-9)
        assert law.std() == pytest.approx(0.7)


def test_samples_have_the_dtype_asked_for_and_repeat_with_the_generator():
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        draws = [sample_noise((3, 2), "gumbel", 1.0, dtype=dtype, generator=seeded(5)) for _ in range(2)]
        assert draws[0].dtype == dtype
        assert torch.equal(*draws)
    assert sample_noise((0, 3), "student_t", 1.0).shape == (0, 3)


# -- averages under noise ----------------------------------------------------------------------------------------------


def test_average_is_the_built_in_one_and_zero_where_all_is_hidden():
    s, v = normal(2, 3, 6), normal(2, 3, 6, 4, seed=1)
    torch.testing.assert_close(attention_average(s, v), (s.softmax(-1)[..., None] * v).sum(-2))
    assert (attention_average(torch.full((6,), -math.inf), v) == 0).all()


def test_no_noise_leaves_the_average_alone():
    s, v = normal(2, 6), normal(2, 6, 4, seed=1)
    out = perturbed_attention(s, v, 0.0, num_samples=3, chunk_size=2)
    torch.testing.assert_close(out, attention_average(s, v).expand(3, 2, 4))


def test_perturbed_attention_is_the_average_of_noisy_scores():
    s, v = normal(2, 6), normal(2, 6, 4, seed=1)
    out = perturbed_attention(s, v, 0.8, distribution="laplace", num_samples=5, generator=seeded(3))
    noise = sample_noise((5, 2, 6), "laplace", 0.8, dtype=torch.float64, generator=seeded(3))
    torch.testing.assert_close(out, torch.stack([attention_average(s + e, v) for e in noise]))


@pytest.mark.parametrize("name", LIGHT)
def test_measured_bias_and_variance_agree_with_the_first_order(name: str):
    s, v = normal(400), normal(400, 2, seed=1)
    sigma = 0.25
    out = perturbed_attention(s, v, sigma, distribution=name, num_samples=20_000, chunk_size=5000, generator=seeded(2))
    bias, variance = perturbation_moments(s, v, noise_cv2(name, sigma))
    torch.testing.assert_close(out.var(0), variance, rtol=0.05, atol=0)
    error_of_mean = (variance / 20_000).sqrt()
    assert ((out.mean(0) - attention_average(s, v) - bias).abs() < 5 * error_of_mean).all()


def test_moments_are_the_second_order_expansion_in_the_weights():
    s, v = normal(5), normal(5, 3, seed=1)
    p = s.softmax(-1)
    average = lambda w: ((p * w)[:, None] * v).sum(0) / (p * w).sum()
    one = torch.ones(5, dtype=torch.float64)
    first = torch.autograd.functional.jacobian(average, one)
    second = torch.stack(
        [torch.autograd.functional.hessian(lambda w, c=c: average(w)[c], one).diag() for c in range(3)]
    )
    bias, variance = perturbation_moments(s, v, 0.01)
    torch.testing.assert_close(bias, 0.005 * second.sum(-1))
    torch.testing.assert_close(variance, 0.01 * first.square().sum(-1))


def test_gumbel_noise_of_scale_one_turns_attention_into_sampling():
    s = normal(6)
    noisy = s + sample_noise((40_000, 6), "gumbel", math.pi / math.sqrt(6), dtype=torch.float64, generator=seeded(4))
    counts = torch.bincount(noisy.argmax(-1), minlength=6)
    assert stats.chisquare(counts.numpy(), (s.softmax(-1) * 40_000).numpy()).pvalue > 1e-3


# -- entropy ranges ----------------------------------------------------------------------------------------------------


def test_cosine_deficit_to_fourteen_digits_over_nine_decades():
    for tau in (1e-3, 0.05, 0.1, 0.5, 0.999, 1.0, 1.001, 3.0, 1e3, 1e6):
        with mpmath.workdps(50):
            expected = float(specht(mpmath.mpf(tau)))
        assert cosine_entropy_deficit(tau).item() == pytest.approx(expected, rel=1e-14)
    assert cosine_entropy_deficit(1.0).item() == pytest.approx(0.474474647, abs=1e-9)
    assert cosine_entropy_deficit(0.194944).item() == pytest.approx(math.log(1024), abs=1e-4)


@pytest.mark.parametrize("tau", [0.05, 0.4, 1.0, 7.0])
def test_least_entropy_is_that_of_the_best_vertex_and_of_no_inner_point(tau: float):
    for n in (2, 3, 6, 10):
        vertices = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=n)), dtype=torch.float64)
        entropy = softmax_entropy(vertices / tau)
        least, k = cosine_entropy_min(n, tau)
        assert least == pytest.approx(entropy.min().item(), rel=1e-11, abs=1e-14)
        assert k in (vertices[entropy <= entropy.min() + 1e-12] > 0).sum(-1).tolist()
        inner = 2 * torch.rand(2000, n, dtype=torch.float64, generator=seeded(n)) - 1
        assert softmax_entropy(inner / tau).min() >= least
        assert least >= math.log(n) - cosine_entropy_deficit(tau).item() - 1e-12


def test_least_entropy_looks_at_no_wrong_k():
    for n, tau in itertools.product((17, 1024, 100_003), (0.08, 0.3, 1.0, 50.0)):
        k = torch.arange(1, n, dtype=torch.float64)
        rest = (n - k) * math.exp(-2 / tau)
        every = (k + rest).log() + 2 / tau * rest / (k + rest)
        assert cosine_entropy_min(n, tau)[0] == pytest.approx(every.min().item(), rel=1e-12)
    assert cosine_entropy_min(10_000_000, 0.002)[1] == 1
    assert cosine_entropy_min(1024, 0.001)[0] == 0.0


def test_entropy_of_normal_logits_below_and_above_freezing():
    n = 65536
    s = normal(4, n)
    for sigma in (0.5, 1.0, 2.0):
        measured = softmax_entropy(sigma * s).mean()
        torch.testing.assert_close(measured, gaussian_entropy(n, sigma), rtol=0, atol=0.02)
    assert gaussian_entropy(n, torch.tensor([5.0, 50.0])).tolist() == [0.0, 0.0]
    assert softmax_entropy(10 * s).mean() > 0.1


@pytest.mark.parametrize("d", [2, 3, 5, 16, 64, 500])
def test_sphere_deficit_agrees_with_bessel_functions(d: int):
    for lam in (1e-5, 2.9e-3, 3.1e-3, 0.05, d**-0.5, 1.0, 8.0, 100.0):
        with mpmath.workdps(60):
            expected = float(bessel_deficit(mpmath.mpf(lam), d))
        assert sphere_entropy_deficit(lam, d).item() == pytest.approx(expected, rel=1e-10)


def test_sphere_deficit_in_high_dimension_tends_to_its_laplace_form():
    for d in (10_000, 100_000):
        for lam in (0.1, 1.0, 3.0):
            exact, leading = (sphere_entropy_deficit(lam, d, method=m).item() for m in ("exact", "laplace"))
            assert exact == pytest.approx(leading, rel=3 / d)
    golden = (1 + math.sqrt(5)) / 2
    assert sphere_entropy_deficit(1.0, 64, method="laplace").item() == pytest.approx(32 * math.log(golden))


def test_sphere_deficit_is_what_keys_on_a_sphere_lose():
    d, n = 8, 200_000
    keys = normal(n, d)
    keys = keys / keys.norm(dim=-1, keepdim=True) * d**0.5
    for lam in (0.2, 0.35, 0.7):
        lost = math.log(n) - softmax_entropy(lam * d**0.5 * keys[:, 0]).item()
        assert lost == pytest.approx(sphere_entropy_deficit(lam, d).item(), rel=0.02)


def test_invariant_scale_is_the_usual_one_at_the_training_length():
    assert entropy_invariant_scale(512, 64).item() == pytest.approx(0.125)
    scales = entropy_invariant_scale(torch.tensor([1, 512, 512**2]), 16)
    torch.testing.assert_close(scales, torch.tensor([0.0, 0.25, 0.5], dtype=torch.float64))


# -- attention with statistics -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("block_size", [1, 3, 7, 64])
def test_blocks_of_any_size_give_dense_attention(block_size: int):
    q, k, v = 2 * normal(2, 3, 5, 4), normal(2, 3, 7, 4, seed=1), normal(2, 3, 7, 6, seed=2)
    close(attention_stats(q, k, v, block_size=block_size), dense(q, k, v))


@pytest.mark.parametrize(("L", "S"), [(5, 7), (7, 5), (6, 6), (1, 9), (3, 1)])
def test_causal_rows_see_keys_up_to_their_own(L: int, S: int):
    q, k, v = normal(2, L, 4), normal(2, S, 4, seed=1), normal(2, S, 3, seed=2)
    visible = torch.arange(S) <= torch.arange(L)[:, None] + (S - L)
    close(attention_stats(q, k, v, causal=True, block_size=2), dense(q, k, v, visible=visible))


def test_many_tiles_of_queries_heads_and_keys(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("kexue_lib.attention.softmax_robustness._stats._TILE", 12)
    q, k, v = normal(2, 3, 11, 4), normal(3, 13, 4, seed=1), normal(2, 1, 13, 2, seed=2)
    masks = [(2, 3, 11, 13), (2, 1, 11, 13), (3, 1, 13), (11, 1), (13,), ()]
    for shape in masks:
        mask = torch.rand(shape, generator=seeded(3)) < 0.7
        visible = mask & (torch.arange(13) <= torch.arange(11)[:, None] + 2)
        inputs = [x.clone().requires_grad_() for x in (q, k, v)]
        ours = attention_stats(*inputs, causal=True, mask=mask, block_size=3)
        theirs = dense(*inputs, visible=visible)
        alive = theirs.lse.isfinite()
        close(ours, theirs)
        loss = lambda out, alive=alive: sum(x[alive].sin().sum() for x in out)
        for a, e in zip(torch.autograd.grad(loss(ours), inputs), torch.autograd.grad(loss(theirs), inputs)):
            torch.testing.assert_close(a, e, rtol=1e-10, atol=1e-10)


def test_row_without_a_visible_key():
    q, k, v = (normal(3, 4, seed=i).requires_grad_() for i in range(3))
    mask = torch.tensor([[False] * 3, [True] * 3, [False, True, False]])
    out = attention_stats(q, k, v, mask=mask)
    assert (out.output[0] == 0).all()
    assert [x[0].item() for x in out[1:]] == [-math.inf, 0.0, 0.0]
    assert [out.entropy[2].item(), out.effective[2].item()] == [0.0, 1.0]
    grads = torch.autograd.grad(out.output.sum() + out.entropy.sum() + out.effective.sum(), (q, k, v))
    assert all(g.isfinite().all() for g in grads)
    assert (grads[0][0] == 0).all()


def test_one_key_has_no_entropy_and_no_keys_give_zero():
    q = normal(2, 3, 4)
    one = attention_stats(q, normal(2, 1, 4), normal(2, 1, 5))
    assert (one.entropy == 0).all()
    assert (one.effective == 1).all()
    none = attention_stats(q, normal(2, 0, 4), normal(2, 0, 5))
    assert none.output.shape == (2, 3, 5)
    assert (none.lse == -math.inf).all()
    assert attention_stats(q[:, :0], q, q).output.shape == (2, 0, 4)


def test_scores_far_apart_neither_overflow_nor_lose_the_entropy():
    k = torch.tensor([[0.0], [1.0], [2.0]], dtype=torch.float32)
    q = torch.tensor([[1e4], [-1e4], [20.0]])
    out = attention_stats(q, k, k, scale=1.0, block_size=1)
    expected = dense(q, k, k, 1.0)
    torch.testing.assert_close(out.entropy.double(), expected.entropy, rtol=0, atol=1e-7)
    torch.testing.assert_close(out.lse.double(), expected.lse, rtol=1e-6, atol=0)
    assert (out.entropy >= 0).all()


def test_scale_may_differ_from_query_to_query_and_has_a_gradient():
    q, k, v = normal(2, 5, 4), normal(2, 7, 4, seed=1), normal(2, 7, 3, seed=2)
    scale = torch.linspace(0.0, 1.5, 5, dtype=torch.float64)
    close(attention_stats(q, k, v, scale=scale, block_size=2), dense(q, k, v, scale))
    for s in (scale, torch.tensor(0.4, dtype=torch.float64)):
        assert gradcheck(lambda s: attention_stats(q, k, v, scale=s, block_size=3), (s.requires_grad_(),))


def test_gradients_of_all_four_results():
    inputs = [normal(2, 4, 3), normal(5, 3, seed=1), normal(2, 5, 2, seed=2)]
    inputs = [x.requires_grad_() for x in inputs]
    function = lambda q, k, v: attention_stats(q, k, v, causal=True, block_size=2)
    assert gradcheck(function, inputs)
    assert gradgradcheck(function, inputs)


def test_half_types_accumulate_in_float32():
    q, k, v = (normal(2, 9, 8, seed=i, dtype=torch.bfloat16) for i in range(3))
    out = attention_stats(q, k, v, block_size=4)
    assert [x.dtype for x in out] == [torch.bfloat16, *[torch.float32] * 3]
    torch.testing.assert_close(out.entropy.double(), dense(q, k, v).entropy, rtol=1e-5, atol=1e-5)


def test_compiled_gradients_are_the_eager_ones():
    inputs = [normal(2, 5, 3, seed=i).requires_grad_() for i in range(3)]
    with as_users_call():
        loss = lambda q, k, v: sum(x.sin().sum() for x in attention_stats(q, k, v, causal=True, block_size=3))
        compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
        for a, e in zip(torch.autograd.grad(compiled(*inputs), inputs), torch.autograd.grad(loss(*inputs), inputs)):
            torch.testing.assert_close(a, e)


MEMORY = """
import re, torch
from kexue_lib.attention.softmax_robustness import attention_stats
torch.set_num_threads(1)
peak = lambda: int(re.search("VmHWM:[^0-9]*([0-9]+)", open("/proc/self/status").read())[1])
q, k, v = (torch.randn(4096, 64, requires_grad=True) for _ in range(3))
def dense():
    p = (q @ k.T / 8).softmax(-1)
    return p @ v, -(p * p.log()).sum(-1), 1 / p.square().sum(-1)
attention_stats(q[:64], k[:64], v[:64]).entropy.sum().backward()
start = peak(); out = attention_stats(q, k, v); forward = peak()
(out.output.sum() + out.entropy.sum() + out.effective.sum()).backward(); backward = peak()
with torch.no_grad():
    dense()
print((forward - start) / (peak() - start), (backward - start) / (peak() - start))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_of_both_passes_is_a_tenth_of_the_dense_forward_pass():
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    forward, backward = map(float, done.stdout.split())
    assert forward < 0.1
    assert backward < 0.1


# -- bad input ---------------------------------------------------------------------------------------------------------

Q = torch.zeros(2, 4)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: noise_cv2("cauchy", 1.0), "distribution: got 'cauchy', expected one of 'gaussian', 'uniform'"),
        (lambda: sample_noise((2,), "normal", 1.0), "distribution: got 'normal'"),
        (lambda: noise_cv2("gaussian", -1.0), "sigma: got -1.0"),
        (lambda: noise_cv2("gaussian", torch.tensor([1.0, -1.0])), "sigma"),
        (lambda: sample_noise((2,), "gaussian", -1.0), "sigma: got -1.0"),
        (lambda: sample_noise((2,), "student_t", 1.0, df=0.0), "df: got 0.0"),
        (lambda: cosine_entropy_deficit(0.0), "tau: got 0.0"),
        (lambda: cosine_entropy_min(5, -1.0), "tau: got -1.0"),
        (lambda: cosine_entropy_min(1, 1.0), "n: got 1"),
        (lambda: gaussian_entropy(0, 1.0), "n - 1"),
        (lambda: sphere_entropy_deficit(1.0, 1), "d: got 1"),
        (lambda: sphere_entropy_deficit(-1.0, 8), "lam: got -1.0"),
        (lambda: entropy_invariant_scale(4, 8, train_length=1), "train_length: got 1"),
        (lambda: entropy_invariant_scale(4, 0), "d: got 0"),
        (lambda: attention_stats(Q, Q, Q, block_size=0), "block_size: got 0"),
        (lambda: attention_stats(Q, Q[:1], Q), "value: length 2, expected 1"),
        (lambda: attention_stats(Q, Q[:, :3], Q), "key: width 3, expected 4"),
        (lambda: attention_stats(Q, Q, Q, mask=torch.ones(3, 2, dtype=torch.bool)), "mask: shape (3, 2)"),
        (lambda: attention_stats(Q, Q, Q, scale=torch.ones(3)), "scale: shape (3,)"),
        (lambda: attention_stats(Q.expand(3, 2, 4), Q.expand(2, 2, 4), Q), "batch dimensions"),
        (lambda: attention_average(torch.zeros(3), Q), "values: length 2, expected 3"),
        (lambda: perturbation_moments(torch.zeros(3), Q, 0.1), "values: length 2, expected 3"),
        (lambda: perturbed_attention(torch.zeros(2), Q, 0.1, num_samples=0), "num_samples: got 0"),
        (lambda: perturbed_attention(torch.zeros(2), Q, 0.1, chunk_size=0), "chunk_size: got 0"),
        (lambda: softmax_entropy(Q, mask=torch.ones(3, dtype=torch.bool)), "mask: shape (3,)"),
    ],
)
def test_wrong_values_are_named(call, words: str):
    with as_users_call(), pytest.raises(ValueError, match=r".") as error:
        call()
    assert words in str(error.value)


def test_wrong_kinds_are_named():
    with as_users_call():
        with pytest.raises(TypeError, match=r"mask: dtype torch\.float32, expected bool"):
            attention_stats(Q, Q, Q, mask=torch.ones(2, 2))
        with pytest.raises(TypeError, match=r"mask: dtype torch\.int64, expected bool"):
            softmax_entropy(Q, mask=torch.ones(2, 4, dtype=torch.int64))
        with pytest.raises(TypeError, match="expected one dtype"):
            attention_stats(Q, Q, Q.double())
