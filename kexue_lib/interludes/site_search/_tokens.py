"""From text to tokens: words, names of functions, LaTeX commands and bigrams of ideographs and kana."""

from __future__ import annotations

import re
import unicodedata
from itertools import pairwise

# Scripts without spaces between words: ideographs with their marks of repetition, then kana.
_PAIRED = "\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0003ffff"
_PAIRED += "\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff"
_LETTER = rf"[^\W_{_PAIRED}]"
_TOKEN = re.compile(rf"\\(?P<command>[a-z]+)|(?P<name>{_LETTER}+(?:_+{_LETTER}+)*)|(?P<paired>[{_PAIRED}]+)")


def tokenize(text: str, *, bigrams: bool = True) -> list[str]:
    r"""Return the tokens of a text in their order: what an index counts and a query asks for.

    After Unicode's NFKC form and lower case, these are tokens, and everything else separates them:

    - runs of letters of any script (accented ones too) and digits; nothing is stemmed;
    - a name with underscores, ``linear_scan``, followed by its parts, so that either finds it;
    - the name of a LaTeX command, ``\alpha`` as ``alpha``, without what follows it;
    - the pairs of neighbours in a run of ideographs and kana; a run of one gives that character.

    A mark that no composed letter takes up (the hat of β̂, vowel signs of Devanagari) separates like a space.

    Args:
        text: any text.
        bigrams: pairs of ideographs and kana; else single ones.

    Returns:
        The tokens.

    Raises:
        TypeError: no ``str``.

    Cost: linear in the length.

    >>> tokenize("Linear_scan: 得分匹配 of images, $\\alpha_1$")
    ['linear_scan', 'linear', 'scan', '得分', '分匹', '匹配', 'of', 'images', 'alpha', '1']
    >>> tokenize("β-VAE, ベイズ")
    ['β', 'vae', 'ベイ', 'イズ']
    """
    if not isinstance(text, str):
        raise TypeError(f"text: got {type(text).__name__}, expected a str")
    tokens: list[str] = []
    for match in _TOKEN.finditer(unicodedata.normalize("NFKC", text).lower()):
        run = match.group(match.lastgroup or 0)
        if match.lastgroup == "paired":
            tokens += map("".join, pairwise(run)) if bigrams and len(run) > 1 else run
        else:
            tokens.append(run)
            if match.lastgroup == "name" and "_" in run:
                tokens += filter(None, run.split("_"))
    return tokens
