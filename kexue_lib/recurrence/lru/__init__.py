r"""Linear recurrent units: a diagonal complex state that is trained in parallel and run one step at a time.

:class:`LRU` is the layer, :class:`LRUBlock` the residual block around it, :func:`lru_init` draws its eigenvalues on a
ring inside of the unit circle, and :func:`lru_gain` is what the states' variance grows by. :func:`diagonalize_rnn`
turns a dense linear RNN into this form; :func:`rwkv_mix` is a relative that needs no normalisation.

Source: Su Jianlin, "A new Google work tries to "resurrect" the RNN: can RNNs shine again?", 2023,
https://kexue.fm/archives/9554; A. Orvieto et al., "Resurrecting Recurrent Neural Networks for Long Sequences", 2023,
arXiv 2303.06349.
"""

from __future__ import annotations

from kexue_lib.recurrence.lru._layer import LRU, LRUBlock
from kexue_lib.recurrence.lru._mixing import rwkv_mix
from kexue_lib.recurrence.lru._spectrum import diagonalize_rnn, lru_eigenvalues, lru_gain, lru_init

__all__ = ["LRU", "LRUBlock", "diagonalize_rnn", "lru_eigenvalues", "lru_gain", "lru_init", "rwkv_mix"]
