"""Create or refresh ``.venv`` from ``requirements.lock``; needs nothing but a Python that is new enough.

``make`` calls it before everything else. When nothing changed since the last time it returns at once.
Every failure that a reader can mend ends in one plain sentence that says how.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = ROOT / ".venv"
STAMP = ENVIRONMENT / ".book-set-up"
OLDEST, NEWEST = (3, 10), (3, 14)  # of the wheels of the pinned PyTorch
FREE_GIGABYTES = 4


def fail(reason: str, remedy: str) -> None:
    """End with the reason and what the reader can do about it.

    Args:
        reason: what went wrong, one sentence.
        remedy: what to do, one sentence.
    """
    sys.exit(f"\nset-up failed: {reason}\n  what to do: {remedy}")


def fingerprint() -> str:
    """Return a digest of everything that the environment is made from.

    Returns:
        A hexadecimal digest of the lock, the project file and the Python version.
    """
    digest = hashlib.sha256(f"{sys.version_info[:2]} {ROOT}".encode())
    for name in ("requirements.lock", "pyproject.toml"):
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()


def check_machine() -> None:
    """Stop early, with a remedy, where the set-up cannot succeed.

    Raises:
        SystemExit: Python too old or too new, disk too small, folder not writable.
    """
    if not OLDEST <= sys.version_info[:2] <= NEWEST:
        have, low, high = (".".join(map(str, v)) for v in (sys.version_info[:2], OLDEST, NEWEST))
        fail(
            f"this is Python {have}; the pinned packages need {low} to {high}.",
            "name a suitable one, for example: make PYTHON=python3.12 book",
        )
    if not os.access(ROOT, os.W_OK):
        fail(f"the folder {ROOT.name}/ is not writable.", "copy the book to a folder of your own and run make there.")
    free = shutil.disk_usage(ROOT).free / 1e9
    if free < FREE_GIGABYTES and not ENVIRONMENT.exists():
        fail(
            f"{free:.1f} GB of disk are free; PyTorch and Jupyter need about {FREE_GIGABYTES} GB.",
            "free some space, or move the book to a larger disk.",
        )


def install() -> None:
    """Install the pinned packages and the library itself into the environment.

    Raises:
        SystemExit: the environment could not be created, or pip failed.
    """
    python = ENVIRONMENT / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not _works(python):
        try:
            venv.EnvBuilder(with_pip=True, clear=True).create(ENVIRONMENT)
        except (OSError, subprocess.CalledProcessError) as error:
            fail(
                f"the environment .venv could not be created ({error}).",
                "on Debian and Ubuntu: sudo apt-get install python3-venv; if the disk is full, free some space; "
                "then `make clean` and again.",
            )
    pip = [str(python), "-m", "pip", "install", "--disable-pip-version-check", "--progress-bar", "off", "-q"]
    for arguments in (["-r", "requirements.lock"], ["--no-deps", "-e", "."]):
        quiet = {**os.environ, "PYTHONWARNINGS": "ignore"}  # of the build, about editable installs
        if subprocess.run([*pip, *arguments], cwd=ROOT, env=quiet).returncode:
            fail(
                "pip could not install the pinned packages (its message is above).",
                "check the network connection and the free disk space, then run the same make command again; "
                "it goes on where it stopped.",
            )


def _works(python: Path) -> bool:
    """Whether an environment is there, whole, and of this Python: then only its packages have to be brought up."""
    if not python.exists():
        return False
    probe = "import pip, sys; print(sys.version_info[:2])"
    shown = subprocess.run([str(python), "-c", probe], capture_output=True, text=True)
    return shown.stdout.strip() == str(sys.version_info[:2])


def main() -> None:
    """Bring ``.venv`` to what the lock says, once."""
    wanted = fingerprint()
    if STAMP.exists() and STAMP.read_text() == wanted:
        return
    check_machine()
    print("Setting up .venv from requirements.lock: a few minutes, once.", flush=True)
    install()
    STAMP.write_text(wanted)


if __name__ == "__main__":
    main()
