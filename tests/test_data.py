"""The data of the book: deterministic, split without leaks, and what the docstrings say."""

import math

import pytest
import torch
from sklearn.datasets import load_digits

from kexue_lib import data


def seeded(n=0):
    return torch.Generator().manual_seed(n)


def test_digits_are_all_there_once():
    split = data.digits()
    assert split.x_train.shape == (1400, 64)
    pixels = torch.cat([split.x_train, split.x_test]) * 16
    ours = sorted(map(tuple, pixels.int().tolist()))
    assert ours == sorted(map(tuple, load_digits().data.astype(int).tolist()))
    assert torch.bincount(torch.cat([split.y_train, split.y_test])).tolist() == [
        int((load_digits().target == c).sum()) for c in range(10)
    ]


def test_digits_keep_images_with_their_labels():
    bundle = load_digits()
    label = {tuple(map(int, x)): y for x, y in zip(bundle.data, bundle.target)}
    split = data.digits(test_size=100)
    assert all(label[tuple(map(int, 16 * x))] == y for x, y in zip(split.x_test, split.y_test))


def test_digits_split_is_fixed_unless_a_generator_is_given():
    assert torch.equal(data.digits().x_test, data.digits().x_test)
    assert torch.equal(data.digits(generator=seeded(1)).y_test, data.digits(generator=seeded(1)).y_test)
    assert not torch.equal(data.digits(generator=seeded(1)).y_test, data.digits().y_test)


@pytest.mark.parametrize(("scale", "low", "high"), [("unit", 0, 1), ("symmetric", -1, 1)])
def test_digits_ranges(scale, low, high):
    x = data.digits(scale=scale, test_size=0).x_train
    assert (x.min(), x.max()) == (low, high)


def test_standardised_digits_use_the_training_part_only():
    raw, split = data.digits(dtype=torch.float64), data.digits(scale="standard", dtype=torch.float64)
    torch.testing.assert_close(split.x_train.mean(0), torch.zeros(64, dtype=torch.float64))
    varied = 16 * raw.x_train.std(0, correction=0) > 1
    torch.testing.assert_close(
        split.x_train.std(0, correction=0)[varied], torch.ones(int(varied.sum()), dtype=torch.float64)
    )
    assert split.x_test.mean(0).abs().max() > 1e-3
    assert split.x_train.isfinite().all()


@pytest.mark.parametrize("bad", [-1, 1797, 3.0, True])
def test_digits_refuses_test_size(bad):
    with pytest.raises((ValueError, TypeError), match="test_size"):
        data.digits(test_size=bad)


def test_digits_refuses_scale():
    with pytest.raises(Exception, match="scale"):
        data.digits(scale="minmax")


def test_flipped_labels_are_a_share_redrawn_uniformly():
    y = torch.zeros(100_000, dtype=torch.long)
    flipped = data.flip_labels(y, 0.4, 10, generator=seeded())
    assert (flipped != 0).float().mean().item() == pytest.approx(0.4 * 0.9, abs=0.01)
    counts = torch.bincount(flipped, minlength=10)[1:].double()
    assert (counts / counts.mean() - 1).abs().max() < 0.08
    assert not y.any()
    with pytest.raises(ValueError, match="fraction"):
        data.flip_labels(y, 1.5, 10)
    with pytest.raises(ValueError, match="num_classes"):
        data.flip_labels(y, 0.5, 0)


def test_minibatches_see_every_row_once_an_epoch_and_drop_the_rest():
    sample, g = data.minibatches(torch.arange(10), torch.arange(10) * 2, batch_size=3), seeded()
    for _ in range(3):
        rows = [sample(g) for _ in range(3)]
        assert all(torch.equal(2 * a, b) for a, b in rows)
        assert len(set(torch.cat([a for a, _ in rows]).tolist())) == 9


def test_minibatches_resume_inside_an_epoch():
    g = seeded()
    sample = data.minibatches(torch.arange(10), batch_size=3)
    sample(g)
    state, generator_state = sample.state_dict(), g.get_state()
    expected = [sample(g)[0] for _ in range(5)]
    other, h = data.minibatches(torch.arange(10), batch_size=3), seeded(9)
    other.load_state_dict(state)
    h.set_state(generator_state)
    assert all(torch.equal(a, other(h)[0]) for a in expected)
    with pytest.raises(ValueError, match="state"):
        data.minibatches(torch.arange(4), batch_size=3).load_state_dict(state)


@pytest.mark.parametrize(
    ("tensors", "size", "name"), [((4,), 5, "batch_size"), ((4,), 0, "batch_size"), ((4, 5), 2, "tensors")]
)
def test_minibatches_refuses(tensors, size, name):
    with pytest.raises(ValueError, match=name):
        data.minibatches(*map(torch.arange, tensors), batch_size=size)


@pytest.mark.parametrize("corpus", [data.python_source, data.python_topics])
def test_corpora_are_the_same_bytes_every_time(corpus):
    first, second = corpus(), corpus()
    assert torch.equal(first.train, second.train)
    assert len(first.validation) == (len(first.train) + len(first.validation)) // 20
    text = bytes(torch.cat([first.train, first.validation]).tolist())
    assert b"import " in text
    text.decode("utf-8")


def test_windows_are_pieces_of_the_corpus_from_everywhere():
    corpus = torch.arange(50, dtype=torch.uint8)
    windows = data.byte_windows(corpus, 5, 2000)(seeded())
    assert windows.dtype == torch.int64
    assert (windows.diff(dim=1) == 1).all()
    assert set(windows[:, 0].tolist()) == set(range(46))
    assert data.byte_windows(corpus, 50, 1)(seeded()).tolist() == [list(range(50))]
    for name, arguments in (("length", (51, 1)), ("length", (0, 1)), ("batch_size", (5, 0))):
        with pytest.raises(ValueError, match=name):
            data.byte_windows(corpus, *arguments)


def test_words_go_back_to_the_text_when_the_vocabulary_is_large_enough():
    text = "def f(x):\n    return x_1 + é"
    ids, vocabulary = data.word_tokens(text.encode(), 100)
    assert "".join(vocabulary[i] for i in ids) == text
    counts = torch.bincount(ids)[1:]
    assert (counts[:-1] >= counts[1:]).all()
    with pytest.raises(ValueError, match="vocab_size"):
        data.word_tokens(b"a", 0)


def test_entropies_of_a_markov_chain():
    # From state 0 always to 1; from 1 to either with probability one half: H_2 = P(1) log 2 = (2/3) log 2.
    g, state, chain = seeded(), 0, []
    coins = torch.rand(200_000, generator=g).tolist()
    for coin in coins:
        state = 1 if state == 0 else int(coin < 0.5)
        chain.append(state)
    corpus = torch.tensor(chain, dtype=torch.uint8)
    third = 1 / 3
    unigram = -third * math.log(third) - 2 * third * math.log(2 * third)
    assert data.ngram_entropy(corpus, 1) == pytest.approx(unigram, abs=5e-3)
    assert data.ngram_entropy(corpus, 2) == pytest.approx(2 / 3 * math.log(2), abs=5e-3)
    with pytest.raises(ValueError, match="corpus"):
        data.ngram_entropy(corpus[:1], 2)
