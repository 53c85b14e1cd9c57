"""Cut the few icons that the theme draws out of Font Awesome: five kilobytes in place of two megabytes a page.

Run it after a new version of the theme: ``pip install fonttools brotli && python tools/subset_icons.py``.
The fonts come from the installed theme; the result lies in ``_static/fonts`` and ``_static/icons.css``.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

STATIC = Path(__file__).resolve().parent.parent / "_static"
NOTICE = (
    "Font Awesome Free 6.5.2 by @fontawesome, https://fontawesome.com. Icons: CC BY 4.0, fonts: SIL OFL 1.1, code: MIT."
)

# Every icon that a template, a button or a stylesheet of the theme names.
SOLID = {
    "angle-down": "f107",
    "angle-left": "f104",
    "angle-right": "f105",
    "angle-up": "f106",
    "arrow-up": "f062",
    "bars": "f0c9",
    "chevron-down": "f078",
    "chevron-right": "f054",
    "chevron-up": "f077",
    "circle-half-stroke": "f042",
    "code": "f121",
    "download": "f019",
    "ellipsis": "f141",
    "expand": "f065",
    "file": "f15b",
    "file-lines": "f15c",
    "file-pdf": "f1c1",
    "home": "f015",
    "lightbulb": "f0eb",
    "list": "f03a",
    "magnifying-glass": "f002",
    "moon": "f186",
    "outdent": "f03b",
    "pencil": "f303",
    "pencil-alt": "f303",
    "play": "f04b",
    "rocket": "f135",
    "sun": "f185",
    "xmark": "f00d",
}
# Named by the theme's own variables (admonitions, external links), not by a class.
SOLID_BY_CODE = ["f058", "f05a", "f071", "f06a", "f057", "f35d", "f010", "f064", "f0f3"]
BRANDS = {"github": "f09b"}


def main() -> None:
    """Write the two font subsets and the stylesheet that names their icons.

    The stylesheet defines the same class names and variables as Font Awesome's own, so the theme's templates
    work unchanged.
    """
    fonts = files("pydata_sphinx_theme") / "theme/pydata_sphinx_theme/static/vendor/fontawesome"
    webfonts = next(Path(str(fonts)).glob("*/webfonts"))
    _subset(webfonts / "fa-solid-900.woff2", "icons-solid.woff2", [*SOLID.values(), *SOLID_BY_CODE])
    _subset(webfonts / "fa-brands-400.woff2", "icons-brands.woff2", list(BRANDS.values()))
    (STATIC / "icons.css").write_text(_stylesheet(), encoding="utf-8")


def _subset(source: Path, name: str, codes: list[str]) -> None:
    from fontTools import subset

    options = subset.Options(flavor="woff2", layout_features=[], notdef_outline=False)
    font = subset.load_font(str(source), options)
    cutter = subset.Subsetter(options)
    cutter.populate(unicodes=[int(code, 16) for code in codes])
    cutter.subset(font)
    subset.save_font(font, str(STATIC / "fonts" / name), options)


def _stylesheet() -> str:
    glyphs = [f'.fa-{name}::before {{ content: "\\{code}"; }}' for name, code in {**SOLID, **BRANDS}.items()]
    return "\n".join([f"/* {NOTICE} Written by tools/subset_icons.py. */", _RULES.strip(), *glyphs, ""])


_RULES = """
@font-face {
  font-family: "Font Awesome 6 Free"; font-weight: 900; font-display: block;
  src: url("fonts/icons-solid.woff2") format("woff2");
}
@font-face {
  font-family: "Font Awesome 5 Free"; font-weight: 900; font-display: block;
  src: url("fonts/icons-solid.woff2") format("woff2");
}
@font-face {
  font-family: "Font Awesome 6 Brands"; font-weight: 400; font-display: block;
  src: url("fonts/icons-brands.woff2") format("woff2");
}
:root {
  --fa-font-solid: normal 900 1em/1 "Font Awesome 6 Free";
  --fa-font-brands: normal 400 1em/1 "Font Awesome 6 Brands";
}
.fa-solid, .fas, .fab, .fa-brands {
  display: inline-block; font-style: normal; font-variant: normal; line-height: 1; text-rendering: auto;
  -webkit-font-smoothing: antialiased;
}
.fa-solid, .fas { font-family: "Font Awesome 6 Free"; font-weight: 900; }
.fab, .fa-brands { font-family: "Font Awesome 6 Brands"; font-weight: 400; }
.fa-lg { font-size: 1.25em; line-height: .05em; vertical-align: -.075em; }
"""

if __name__ == "__main__":
    main()
