"""What the search of the site finds besides English words: parts of Chinese ones, and the numbers of articles."""

from __future__ import annotations

import re

from sphinx.application import Sphinx
from sphinx.search.en import SearchEnglish

CHINESE = re.compile(r"[\u4e00-\u9fff]+")
NUMBER = re.compile(r"\d{4,}")
LONGEST = 6  # characters of a Chinese word that is searched for


class SearchBook(SearchEnglish):
    """English, with each run of Chinese characters entered under all its parts: Chinese has no blanks between words.

    The search in the browser drops numbers; ``book.js`` turns a number of an article into the word that stands here.
    """

    def split(self, input: str) -> list[str]:
        """Return the words of a text.

        Args:
            input: the text.

        >>> SearchBook({}).split("稀疏程度 9595")
        ['稀疏程度', '9595', '稀疏', '疏程', '程度', '稀疏程', '疏程度', '稀疏程度', 'archive9595']
        """
        words = super().split(input)
        for run in CHINESE.findall(input):
            lengths = range(2, min(LONGEST, len(run)) + 1)
            words += [run[start : start + n] for n in lengths for start in range(len(run) - n + 1)]
        return [*words, *(f"archive{number}" for number in NUMBER.findall(input))]


def setup(app: Sphinx) -> None:
    """Take the place of Sphinx's English."""
    app.add_search_language(SearchBook)
