"""The Sphinx extension of the book: all that its site does beyond Jupyter Book.

Modules: ``stored`` reads the notebooks, ``bundles`` draws claims and verdicts, ``pages`` and ``cards`` write the pages
and cards about the book, ``reference`` the library's reference, ``terms`` the links to the glossary, ``search`` what
the search finds; ``head`` writes what surrounds a page, ``entrance`` the pages that nobody writes; ``live`` brings
the proof engine for browsers, ``weight`` keeps pages light.
"""

from __future__ import annotations

from sphinx.application import Sphinx

from . import bundles, cards, entrance, head, live, pages, reference, search, terms, weight


def setup(app: Sphinx) -> dict[str, object]:
    """Register everything; Sphinx calls it because ``_config.yml`` names the extension.

    Args:
        app: Sphinx.

    Returns:
        What Sphinx wants to know of an extension.
    """
    for module in (bundles, pages, cards, reference, terms, search, head, entrance, live, weight):
        module.setup(app)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
