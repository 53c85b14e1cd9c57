"""The residual block and the model around a recurrent layer."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from kexue_lib.recurrence.block import SequenceBlock, SequenceModel
from tests.opinfo import as_users_call


class Running(nn.Module):
    """The plainest memory: the sum of all inputs so far."""

    def forward(self, u, state=None, *, return_state=False):
        sums = u.cumsum(-2) + (0 if state is None else state[..., None, :])
        return (sums, sums[..., -1, :]) if return_state else sums

    def step(self, u, state):
        state = state + u
        return state, state

    def initial_state(self, *batch):
        return torch.zeros(*batch, 6, dtype=torch.float64)


def made(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return SequenceBlock(Running(), 6, generator=generator).double()


def test_block_is_its_formula():
    block, u = made(), torch.randn(3, 5, 6, dtype=torch.float64)
    normed = (u - u.mean(-1, keepdim=True)) / (u.var(-1, keepdim=True, unbiased=False) + 1e-5).sqrt()
    h = F.gelu(normed.cumsum(-2)) @ block.mix[0].weight.mT + block.mix[0].bias
    torch.testing.assert_close(block(u), u + h[..., :6] * torch.sigmoid(h[..., 6:]))


def test_pieces_and_steps_equal_the_whole():
    block, u = made(), torch.randn(3, 9, 6, dtype=torch.float64)
    whole = block(u)
    first, state = block(u[:, :4], return_state=True)
    second = block(u[:, 4:], state)
    torch.testing.assert_close(torch.cat([first, second], 1), whole)
    state, steps = block.initial_state(3), []
    for t in range(9):
        y, state = block.step(u[:, t], state)
        steps.append(y)
    torch.testing.assert_close(torch.stack(steps, 1), whole)


def test_equal_generators_give_equal_blocks():
    for a, b, c in zip(made(1).parameters(), made(1).parameters(), made(2).parameters()):
        assert torch.equal(a, b)
        assert a.std() == 0 or not torch.equal(a, c)


def test_dropout_acts_in_training_only():
    block, u = SequenceBlock(Running(), 6, dropout=0.5), torch.randn(2, 5, 6)
    assert not torch.equal(block(u), block(u))
    block.eval()
    assert torch.equal(block(u), block(u))


@pytest.mark.parametrize("tokens", [False, True])
def test_model_steps_equal_the_whole(tokens):
    size = {"vocab_size": 11} if tokens else {"d_in": 2}
    model = SequenceModel([made(1), made(2)], **size, d_out=3, readout="each").double()
    u = torch.randint(0, 11, (4, 7)) if tokens else torch.randn(4, 7, 2, dtype=torch.float64)
    whole, state = model(u), model.initial_state(4)
    assert whole.shape == (4, 7, 3)
    for t in range(7):
        y, state = model.step(u[:, t], state)
        torch.testing.assert_close(y, whole[:, t])
    model.readout = "last"
    torch.testing.assert_close(model(u), whole[:, -1])


def test_model_learns_a_running_sum_of_signs():
    torch.manual_seed(0)
    model = SequenceModel([made(1)], d_in=1, d_out=2, readout="last").double()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    u = torch.randn(256, 9, 1, dtype=torch.float64)
    labels = (u.sum((1, 2)) > 0).long()
    for _ in range(60):
        loss = F.cross_entropy(model(u), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    fresh = torch.randn(256, 9, 1, dtype=torch.float64)
    assert (model(fresh).argmax(-1) == (fresh.sum((1, 2)) > 0)).double().mean() > 0.9


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: SequenceBlock(Running(), 0), ValueError, "d_model: got 0, expected at least 1"),
        (lambda: SequenceBlock(Running(), 6, dropout=1.0), ValueError, "dropout: got 1.0"),
        (lambda: made()(torch.zeros(2, 5, 7, dtype=torch.float64)), ValueError, "u: got shape .2, 5, 7."),
        (lambda: made()(torch.zeros(2, 5, 6, dtype=torch.long)), TypeError, "u: got torch.int64"),
        (lambda: made().step(torch.zeros(7, dtype=torch.float64), None), ValueError, "u: got shape .7,."),
        (lambda: SequenceModel([], d_in=1, d_out=1, readout="last"), ValueError, "blocks: got d_model of .."),
        (lambda: SequenceModel([made()], d_out=1, readout="last"), ValueError, "exactly one of the two"),
        (
            lambda: SequenceModel([made()], d_in=1, vocab_size=2, d_out=1, readout="last"),
            ValueError,
            "exactly one of the two",
        ),
        (lambda: SequenceModel([made()], d_in=0, d_out=1, readout="last"), ValueError, "d_in: got 0"),
        (lambda: SequenceModel([made()], vocab_size=0, d_out=1, readout="last"), ValueError, "vocab_size: got 0"),
        (lambda: SequenceModel([made()], d_in=1, d_out=1, readout="mean"), ValueError, "'last' or 'each'"),
        (
            lambda: SequenceModel([made()], d_in=1, d_out=1, readout="last").double()(
                torch.zeros(2, 0, 1, dtype=torch.float64)
            ),
            ValueError,
            "at least one position",
        ),
    ],
)
def test_bad_input_is_refused(make, error, message):
    with as_users_call(), pytest.raises(error, match=message):
        make()
