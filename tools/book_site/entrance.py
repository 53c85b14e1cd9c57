"""Pages that no author writes: the entrance that leads to the first page, the page for a lost reader, the site map."""

from __future__ import annotations

from html import escape
from pathlib import Path

from sphinx.application import Sphinx

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8" />
<meta name="viewport" content="width=device-width, initial-scale=1" />
<title>{title}</title>
<meta name="description" content="{description}" />
<meta property="og:title" content="{title}" />
<meta property="og:description" content="{description}" />
{more}
<style>
body {{ font: 1.1rem/1.6 Georgia, serif; max-width: 34rem; margin: 18vh auto 0; padding: 0 1.2rem; color: #22272e; }}
a {{ color: #0b5d5e; }}
@media (prefers-color-scheme: dark) {{ body {{ background: #14181c; color: #dfe3e6; }} a {{ color: #86d3ca; }} }}
</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""
DESCRIPTION = (
    "Articles of Su Jianlin's Scientific Spaces as notebooks that prove their mathematics by machine and run it."
)


def write_pages(app: Sphinx, error: Exception | None) -> None:
    """Write ``index.html``, ``404.html`` and, where the site has an address, ``sitemap.xml``.

    Args:
        app: Sphinx.
        error: what ended the build, if anything did.
    """
    if error is not None or app.builder.name != "html":
        return
    out, base, first = Path(app.outdir), app.config.html_baseurl.rstrip("/"), app.config.root_doc
    title = escape(app.config.html_title)
    shown = {"title": title, "description": escape(DESCRIPTION)}
    go = f'<meta http-equiv="refresh" content="0; url={first}.html" />'
    link = f'<p><a href="{first}.html">{title}</a></p>'
    (out / "index.html").write_text(PAGE.format(**shown, more=go, body=link), encoding="utf-8")
    home = f"{base}/{first}.html" if base else f"{first}.html"
    search = home.replace(f"{first}.html", "search.html")
    lost = (
        f'<h1>No page here</h1>\n<p>It may have moved. <a href="{home}">{title}</a> lists all parts of the book; '
        f'<a href="{search}">search it</a> for what you came for.</p>'
    )
    (out / "404.html").write_text(
        PAGE.format(**shown, more='<meta name="robots" content="noindex" />', body=lost), "utf-8"
    )
    if base:
        pages = "\n".join(f"<url><loc>{base}/{name}.html</loc></url>" for name in sorted(app.env.found_docs))
        text = '<?xml version="1.0" encoding="UTF-8"?>\n<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">\n'
        (out / "sitemap.xml").write_text(f"{text}{pages}\n</urlset>\n", encoding="utf-8")


def setup(app: Sphinx) -> None:
    """Write them after everything else: Jupyter Book leaves an entrance of its own."""
    app.connect("build-finished", write_pages, priority=900)
