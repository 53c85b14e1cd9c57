"""What the stored comparison rests on: the targets, the rivals and the optimiser, against torch's own."""

import torch
from torch.distributions import Categorical, MixtureSameFamily, Normal

from kexue_lib.checkpoints.distributions import _density_rivals as rivals
from kexue_lib.checkpoints.distributions import _density_tasks as tasks
from kexue_lib.checkpoints.distributions import fourier_density as runs
from kexue_lib.mlp import mlp

LINE = torch.linspace(-12, 12, 48001)
STEP = 24 / 48000


def test_the_nine_peaks_are_a_mixture_and_their_samples_follow_it():
    truth = MixtureSameFamily(Categorical(runs.WEIGHTS), Normal(runs.PEAKS, torch.tensor(runs.NARROW)))
    torch.testing.assert_close(runs.peaks_log_prob(LINE), truth.log_prob(LINE), rtol=1e-5, atol=1e-3)
    y = runs.draw_peaks(2500, torch.Generator().manual_seed(0)).flatten()
    for peak, weight in zip(runs.PEAKS, runs.WEIGHTS, strict=True):
        assert abs(((y - peak).abs() < 0.5).double().mean() - weight) < 0.02


def test_the_blocks_integrate_to_one_and_their_samples_follow_them():
    density = runs.blocks_log_prob(LINE).exp()
    assert abs(density.sum() * STEP - 1) < 1e-3
    y = runs.draw_blocks(2500, torch.Generator().manual_seed(0)).flatten()
    for edge in (-2.5, -2, -0.75, 0, 0.3, 1.5, 2):
        mass = density[edge > LINE].sum() * STEP
        assert abs((y < edge).double().mean() - mass) < 0.02


def test_the_network_is_a_density_and_rows_are_independent():
    y = runs.draw_peaks(500, torch.Generator().manual_seed(1))[:2]
    network = rivals.MonotoneNetwork((3, 2), y, 1)
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.5 * torch.randn(p.shape, generator=torch.Generator().manual_seed(2)))
        wide = 100 * LINE  # an untrained network is ten standard deviations wide, with exponential tails
        density = network.log_prob(wide.expand(2, -1)).exp()
        one = network.log_prob(torch.stack([wide, wide + 1])).exp()[0]
    torch.testing.assert_close(density.sum(-1) * 100 * STEP, torch.ones(2), rtol=0, atol=1e-3)
    torch.testing.assert_close(one, density[0])


def test_the_mixture_is_that_of_torch():
    y = runs.draw_peaks(500, torch.Generator().manual_seed(1))[:2]
    mixture = rivals.TrainedMixture(4, y, "spread", 1)
    with torch.no_grad():
        mixture.logits.copy_(torch.randn(2, 4, generator=torch.Generator().manual_seed(2)))
        parts = Normal(mixture.loc, mixture.log_scale.exp())
        expected = MixtureSameFamily(Categorical(logits=mixture.logits), parts).log_prob(y.T).T
    torch.testing.assert_close(mixture.log_prob(y), expected)


def test_the_optimiser_is_adam_with_a_rate_for_each_row():
    start = torch.randn(2, 3, generator=torch.Generator().manual_seed(3))
    ours = start.clone().requires_grad_()
    target = torch.tensor([1.0, -2.0, 0.5])
    rivals.train([ours], lambda y: (ours - y).square().sum(-1), torch.tensor([0.1, 0.01]), lambda: target, 20)
    for row, rate in enumerate((0.1, 0.01)):
        theirs = start[row].clone().requires_grad_()
        optimizer = torch.optim.Adam([theirs], lr=rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 20)
        for _ in range(20):
            optimizer.zero_grad()
            (theirs - target).square().sum().backward()
            optimizer.step()
            schedule.step()
        torch.testing.assert_close(ours[row], theirs, rtol=1e-4, atol=1e-5)


def test_the_bins_of_the_mixture_are_differences_of_its_distribution_function():
    rows = torch.randint(0, 17, (2, 300), generator=torch.Generator().manual_seed(4)).float()
    codec = rivals.GaussianBins(3, rows)
    y = torch.arange(-40.0, 60.0)
    parts = Normal(codec.loc.double(), codec.log_scale.double().exp())
    share = parts.cdf(y[:, None] + 0.5) - parts.cdf(y[:, None] - 0.5)
    mass = codec.bin_log_prob(y.expand(2, -1)).exp()
    torch.testing.assert_close(mass, share.mean(-1).float(), rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(mass.sum(-1), torch.ones(2), rtol=1e-5, atol=0)


def test_the_table_of_frequencies_is_a_smoothed_count():
    rows = torch.tensor([[0.0, 0, 0, 2]])
    counts = torch.tensor([0.5, 3.5, 0.5, 1.5, 0.5])  # of −1, 0, 1, 2, 3
    at = torch.tensor([[0.0, 7.0]])  # beyond the largest: counts as 3
    expected = -(counts / counts.sum())[torch.tensor([1, 4])].log2()
    torch.testing.assert_close(tasks._tabulated(rows, at), expected)


def test_the_stacked_networks_are_those_of_mlp():
    parameters = tasks._networks((1, 4, 4, 3), 4, 2)
    x = torch.linspace(-1, 1, 5)[:, None]
    out = tasks._forward(parameters, x.expand(8, -1, -1))
    net = mlp((1, 4, 4, 3), activation=torch.nn.SiLU, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(out[6], net(x))
    torch.testing.assert_close(out[7], net(x))


def test_both_heads_are_densities_of_the_second_coordinate():
    g = torch.Generator().manual_seed(5)
    y = torch.linspace(-1, 1, 20001)[None]
    total = tasks._fourier_head(torch.randn(26, generator=g).expand(1, 20001, -1), y).exp()[0, 1:].mean() * 2
    torch.testing.assert_close(total, torch.tensor(1.0), rtol=1e-4, atol=0)
    out = torch.randn(27, generator=g)
    mixture = MixtureSameFamily(Categorical(logits=out[:9]), Normal(out[9:18], out[18:].exp()))
    found = tasks._mixture_head(out.expand(1, 20001, -1), y)
    torch.testing.assert_close(found[0], mixture.log_prob(y[0]))
