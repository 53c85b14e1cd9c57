"""Random logits and ids."""

import torch

from kexue_lib.attention import nbce


def seeded(n=0):
    return torch.Generator().manual_seed(n)


def logits(*shape, seed=0, spread=2.0):
    return spread * torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def ids(length, seed, vocab=29):
    return torch.randint(1, vocab, (length,), generator=seeded(seed))


def naive(model, contexts, question, steps, **options):
    """Every row and step anew, unpadded and without a cache."""
    new, previous = question[:0], None
    for _ in range(steps):
        rows = [model(torch.cat([c, question, new])[None])[0, -1] for c in (question[:0], *contexts)]
        out = nbce.nbce_logits(torch.stack(rows[1:]), rows[0], previous=previous, **options)
        new, previous = torch.cat([new, out.logits.argmax(-1, keepdim=True)]), out.index
    return new
