"""What surrounds a page's text: its address, its Open Graph tags, local assets in place of remote ones."""

from __future__ import annotations

import re
import struct
from html import escape
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.transforms import SphinxTransform
from sphinx.util import logging

from . import stored

LOGGER = logging.getLogger(__name__)
# The badges that GitHub, Colab and JupyterLab show come from other hosts; the site draws its own.
BADGES = {"colab-badge.svg": "/_static/badges/colab.svg", "badge_logo.svg": "/_static/badges/binder.svg"}
CARD = "_static/card.png"
SIGNATURE = re.compile(r'<dl>\s*((?:<dd><em class="sig-param">.*?</dd>\s*)+)</dl>')
LINE = re.compile(r"<dd>(.*?)</dd>")
IMAGE = re.compile(r'<img((?=[^>]*src="[^"]*?([^"/]+)")[^>]*)')


class LocalBadges(SphinxTransform):
    """Replace the launch badges of other hosts by the book's own, before Sphinx collects the images."""

    default_priority = 400

    def apply(self, **kwargs: object) -> None:
        """Change the addresses of such images in place."""
        for image in self.document.findall(nodes.image):
            local = BADGES.get(image["uri"].rsplit("/", 1)[-1])
            if local and "://" in image["uri"]:
                image["uri"] = local
                image["classes"].append("launch-badge")


def complete_config(app: Sphinx, config: Config) -> None:
    """Derive the site's own address from the repository's, and keep vendored scripts off the pages.

    A book without a repository's address has no buttons that lead there or launch anything.

    Args:
        app: Sphinx.
        config: changed in place.
    """
    options = config.html_theme_options
    url = options.get("repository_url", "").rstrip("/")
    buttons = (f"use_{what}_button" for what in ("edit_page", "repository", "issues", "source"))
    options.update(dict.fromkeys(buttons, bool(url)))
    if url:
        owner, name = url.rsplit("/", 2)[1:]
        config.html_baseurl = config.html_baseurl or f"https://{owner}.github.io/{name}/"
    else:
        options.update(repository_url="", launch_buttons={})
    # Jupyter Book puts every script below _static on every page; MathJax loads its own parts, search.html its own.
    elsewhere = ("mathjax/", "site_search")
    config.html_js_files = [f for f in config.html_js_files if not str(f).startswith(elsewhere)]


def add_page_tags(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Add description and Open Graph tags to a page's head.

    Args:
        app: Sphinx.
        pagename: the page.
        templatename: its template.
        context: what the template gets; ``metatags`` and ``body`` are changed.
        doctree: the page's text, None for search and index pages.
    """
    _once(context["script_files"])
    if doctree is None:
        return
    base = app.config.html_baseurl.rstrip("/")
    title = nodes.Text(context.get("pagetitle") or context["title"]).astext()
    tags = {
        "og:title": re.sub(r"\$", "", title),
        "og:description": _description(app, pagename, doctree),
        "og:type": "article" if pagename.startswith("chapters/") else "website",
        "og:site_name": app.config.html_title,
    }
    if base:  # these two are addresses
        tags |= {"og:url": f"{base}/{pagename}.html", "og:image": f"{base}/{_picture(app, doctree)}"}
    lines = [f'<meta name="description" content="{escape(tags["og:description"])}" />']
    lines += [f'<meta property="{name}" content="{escape(value)}" />' for name, value in tags.items()]
    lines.append('<meta name="twitter:card" content="summary_large_image" />')
    context["metatags"] = context.get("metatags", "") + "\n".join(lines)
    files = {name: path for path, (_, name) in app.env.images.items()}
    # A list of definitions without terms, which is how Sphinx breaks a long signature, is a barrier to screen readers.
    body = SIGNATURE.sub(lambda m: LINE.sub(r'<span class="sig-line">\1</span>', m[1]), context["body"])
    context["body"] = IMAGE.sub(lambda tag: _with_size(tag, Path(app.srcdir), files), body)


def warn_of_silent_images(app: Sphinx, doctree: nodes.document) -> None:
    """Warn, and so fail the build, where an image has no words for those who do not see it.

    Args:
        app: Sphinx.
        doctree: a page that was just read.
    """
    for image in doctree.findall(nodes.image):
        if not image.get("alt"):
            LOGGER.warning(
                'image without alternative text; a cell states it in its metadata: {"mystnb": {"image": {"alt": "…"}}}',
                location=image if image.line else app.env.docname,
            )


def drop_empty_heads(app: Sphinx, doctree: nodes.document) -> None:
    """Remove the row of headings that Markdown asks of a table which has none, such as a chapter's card.

    Args:
        app: Sphinx.
        doctree: a page that was just read.
    """
    for head in list(doctree.findall(nodes.thead)):
        if not head.astext().strip() and next(head.findall(nodes.image), None) is None:
            head.parent.remove(head)


def _with_size(tag: re.Match[str], root: Path, files: dict[str, str]) -> str:
    """Let a figure load when the reader comes near it, and keep its place free until then."""
    start = f'<img loading="lazy" decoding="async"{tag[1]}'
    source = files.get(tag[2])
    if source is None or not source.endswith(".png") or " width=" in tag[0]:
        return start
    width, height = struct.unpack(">II", (root / source).read_bytes()[16:24])
    return f'<img loading="lazy" decoding="async" width="{width}" height="{height}"{tag[1]}'


def _once(scripts: list) -> None:
    """Drop repeated scripts: an inline one that is declared twice is an error in the browser."""
    seen = set()
    for script in list(scripts):
        body = script.attributes.get("body")
        if body and body in seen:
            scripts.remove(script)
        seen.add(body)


def _description(app: Sphinx, pagename: str, doctree: nodes.document) -> str:
    """A chapter's one-sentence answer, another page's first paragraph."""
    path = Path(app.env.doc2path(pagename))
    if path.suffix == ".ipynb":
        found = [c.answer for c in stored.chapters(Path(app.srcdir)) if c.path == path]
        if found and found[0]:
            return stored.plain(found[0])
    paragraphs = (p for p in doctree.findall(nodes.paragraph) if not p["classes"])
    return stored.plain(" ".join(next((p.astext() for p in paragraphs), app.config.html_title).split()))


def _picture(app: Sphinx, doctree: nodes.document) -> str:
    """The page's first drawn figure, or the book's card."""
    drawn = [i["uri"] for i in doctree.findall(nodes.image) if i["uri"].endswith(".png")]
    found = [app.env.images[uri][1] for uri in drawn if uri in app.env.images]
    return f"_images/{found[0]}" if found else CARD


def setup(app: Sphinx) -> None:
    """Register the transform and the events.

    Nothing here is called by an author.
    """
    # The contents in the sidebar hold formulas on every page, so every page loads MathJax.
    app.set_html_assets_policy("always")
    app.add_transform(LocalBadges)
    app.connect("config-inited", complete_config, priority=100)
    app.connect("doctree-read", warn_of_silent_images)
    app.connect("doctree-read", drop_empty_heads)
    app.connect("html-page-context", add_page_tags, priority=900)
