"""Claims that readers decide themselves: the engine beside the pages, and what it has to know of each chapter.

Where the engine cannot be made (no npm), the site is built without it: no button is shown, and the build says so.
"""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path

import live_proofs
import notebooks
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.util import logging

from kexue_lib.derivation import answers

LOGGER = logging.getLogger(__name__)
SCRIPT = "live_proofs.js"
ASIDE = ("live/",)


@cache
def engine() -> Path | None:
    """Return the folder of the engine's files; None where it cannot be made."""
    try:
        return live_proofs.bundle()
    except live_proofs.Missing as missing:
        LOGGER.info("Without live proofs: %s.", missing)
        return None


def leave_out_script(app: Sphinx, config: Config) -> None:
    """Keep the buttons off the pages of a site that has no engine.

    Args:
        app: Sphinx.
        config: changed in place.
    """
    if engine() is None:
        config.html_js_files = [f for f in config.html_js_files if str(f) != SCRIPT]


def add_engine(app: Sphinx, exception: Exception | None) -> None:
    """Copy the engine, and write what it has to know of each chapter.

    Args:
        app: Sphinx.
        exception: what ended the build, if anything did.
    """
    if exception or app.builder.format != "html":
        return
    folder = Path(app.outdir) / "_static" / "live"
    made = engine()
    if made is None:
        return
    shutil.copytree(made, folder / "engine", dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.wasm"))
    (folder / "facts").mkdir(exist_ok=True)
    for path, claims in zip(notebooks.all_notebooks(), live_proofs.stored_facts().values()):
        known = {label: {**facts, "typed": answers.editable(facts["form"])} for label, facts in claims.items()}
        tasks = exercises(notebooks.read(path))
        text = json.dumps({"claims": known, "exercises": tasks}, ensure_ascii=False)
        (folder / "facts" / f"{path.stem}.json").write_text(text, encoding="utf-8")


def exercises(notebook: dict) -> dict[str, dict]:
    """Return the exercises of a notebook that a reader can answer on the page, by number.

    Args:
        notebook: its content.
    """
    tasks = (task for cell in notebook["cells"] for task in cell["metadata"].get("answers", []))
    return {str(number): task for number, task in enumerate(tasks, 1)}


def setup(app: Sphinx) -> None:
    """Add the engine once everything else is written."""
    app.connect("config-inited", leave_out_script, priority=950)
    app.connect("build-finished", add_engine)
