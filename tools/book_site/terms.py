"""Links from a chapter's prose to the glossary: each term once, where the chapter first uses it."""

from __future__ import annotations

import re

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.transforms.post_transforms import SphinxPostTransform

TRANSLATION = re.compile(r"\s*\([^()]*\)$")
# Words in these are not prose, are quoted, or lead somewhere already.
CLOSED = (nodes.reference, addnodes.pending_xref, nodes.literal, nodes.math, nodes.emphasis)


class LinkTerms(SphinxPostTransform):
    """Turn the first use of each term of the glossary in a chapter into a link; the browser shows the entry there."""

    default_priority = 21

    def run(self, **kwargs: object) -> None:
        """Link the terms of one chapter."""
        if not re.fullmatch(r"chapters/\w+/(?!index)\w+", self.env.docname):
            return
        known = glossary(self.env)
        if not known:
            return
        names = sorted(known, key=len, reverse=True)
        pattern = re.compile(rf"\b({'|'.join(map(re.escape, names))})(?:s|es)?\b", re.I)
        for paragraph in list(self.document.findall(nodes.paragraph)):
            if paragraph["classes"] or isinstance(paragraph.parent, nodes.entry) or not known:
                continue
            for text in list(paragraph.findall(nodes.Text)):
                if not any(isinstance(parent, CLOSED) for parent in _parents(text, paragraph)):
                    self._link(text, pattern, known)

    def _link(self, text: nodes.Text, pattern: re.Pattern[str], known: dict[str, tuple[str, str]]) -> None:
        """Replace the terms in one text that the chapter has not linked yet."""
        pieces, end = [], 0
        for match in pattern.finditer(text):
            place = known.pop(match[1].lower(), None)
            if place is None:
                continue
            docname, anchor = place
            uri = self.app.builder.get_relative_uri(self.env.docname, docname)
            link = nodes.reference("", match[0], internal=True, refuri=f"{uri}#{anchor}", classes=["term"])
            pieces += [nodes.Text(text[end : match.start()]), link]
            end = match.end()
        if pieces:
            text.parent.replace(text, [piece for piece in [*pieces, nodes.Text(text[end:])] if piece.astext()])


def glossary(env: BuildEnvironment) -> dict[str, tuple[str, str]]:
    """Return the terms of the glossary, lower case and without their translation, with the page and place of each.

    Args:
        env: of the build.
    """
    entries = env.get_domain("std").objects
    return {TRANSLATION.sub("", name).lower(): place for (kind, name), place in entries.items() if kind == "term"}


def _parents(node: nodes.Node, top: nodes.Node) -> list[nodes.Node]:
    found = []
    while node is not top:
        node = node.parent
        found.append(node)
    return found


def setup(app: Sphinx) -> None:
    """Register the transform."""
    app.add_post_transform(LinkTerms)
