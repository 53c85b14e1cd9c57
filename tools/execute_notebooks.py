"""Execute notebooks in place: those whose code, or whose part of ``kexue_lib``, changed since they were last stored.

Each runs in a fresh kernel in its own folder. What is stored is normalised; a run that ends in an error, a warning or
a broken budget changes no file. Time and peak memory of every run go to ``benchmarks/results/notebooks.json``.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import nbformat
import notebooks
import psutil
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from PIL import Image
from tqdm import tqdm

MEASURED = notebooks.ROOT / "benchmarks" / "results" / "notebooks.json"
MAX_SECONDS, MAX_BYTES_IN_MEMORY, MAX_BYTES_STORED = 60.0, 1.5e9, 1_000_000
PARSING = threading.Lock()  # two threads that parse at once make CPython 3.11 fail (its issue 106905)
CELL_TIMEOUT = 300  # seconds; the budget is judged at the end, this only ends a cell that hangs


class Watch(threading.Thread):
    """Watches the resident memory and the CPU time of a process and its children until it is stopped.

    On one thread, CPU time is how long a notebook takes on a machine that has nothing else to do; the wall clock
    would depend on what else runs.

    Args:
        pid: the process.
    """

    def __init__(self, pid: int):
        super().__init__(daemon=True)
        self.process, self.peak, self.cpu, self._stop_now = psutil.Process(pid), 0, 0.0, threading.Event()

    def run(self) -> None:
        """Sample every 50 ms; a child that comes and goes between two samples is too short to matter."""
        while not self._stop_now.wait(0.05):
            self._sample()

    def _sample(self) -> None:
        try:
            family = [self.process, *self.process.children(recursive=True)]
            self.peak = max(self.peak, sum(p.memory_info().rss for p in family))
            times = [p.cpu_times() for p in family]
            ended = times[0].children_user + times[0].children_system
            self.cpu = max(self.cpu, ended + sum(t.user + t.system for t in times))
        except psutil.Error:  # a child ended between listing and reading
            pass

    def stop(self) -> tuple[int, float]:
        """Return the peak in bytes and the CPU seconds, and end the thread."""
        self._stop_now.set()
        self.join()
        self._sample()
        return self.peak, self.cpu


def shrink_figures(notebook: dict) -> None:
    """Store figures with at most 256 colours: half the bytes, and no difference that an eye could see.

    Args:
        notebook: its content; changed in place.
    """
    for cell in notebooks.code_cells(notebook):
        for output in cell.get("outputs", []):
            encoded = output.get("data", {}).get("image/png")
            if encoded is None:
                continue
            picture = Image.open(io.BytesIO(base64.b64decode("".join(encoded)))).convert("RGB")
            small = io.BytesIO()
            picture.quantize(256, dither=Image.Dither.NONE).save(small, "PNG", optimize=True)
            output["data"]["image/png"] = base64.b64encode(small.getvalue()).decode()


def execute(path: Path, bar: tqdm) -> dict[str, float]:
    """Execute one notebook and store it.

    Args:
        path: the ``.ipynb`` file.
        bar: advanced by one for each code cell.

    Returns:
        ``seconds`` of CPU time, ``peak_mb``, ``stored_kb``.

    Raises:
        RuntimeError: an error, a warning, a machine path or a broken budget; the file is as before.
    """
    content = nbformat.read(path, as_version=4)
    client = NotebookClient(content, timeout=CELL_TIMEOUT, resources={"metadata": {"path": str(path.parent)}})
    client.on_cell_complete = lambda cell, cell_index: bar.update(1)
    # One thread each: notebooks run side by side, and a fixed number keeps floating-point sums the same everywhere.
    environment = {"OMP_NUM_THREADS": "1", **os.environ, "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
    with client.setup_kernel(env=environment):
        watch = Watch(client.km.provisioner.pid)
        watch.start()
        try:
            for index, cell in enumerate(content.cells):
                client.execute_cell(cell, index, store_history=True)
        except CellExecutionError as error:
            raise RuntimeError(f"{notebooks.relative(path)}: {str(error)[-3000:]}") from None
        finally:
            peak, seconds = watch.stop()
    result = notebooks.normalise(json.loads(nbformat.writes(content)))
    shrink_figures(result)
    with PARSING:
        fingerprint, wrong = notebooks.fingerprint(result), notebooks.faults(result)
    result["metadata"]["kexue"] = {**result["metadata"].get("kexue", {}), "fingerprint": fingerprint}
    size = len(json.dumps(result, indent=1, ensure_ascii=False).encode())
    for name, value, limit in (
        ("seconds", seconds, MAX_SECONDS),
        ("bytes of memory", peak, MAX_BYTES_IN_MEMORY),
        ("bytes stored", size, MAX_BYTES_STORED),
    ):
        if value > limit:
            wrong.append(f"{value:.4g} {name}; the budget is {limit:.4g}")
    if wrong:
        raise RuntimeError("\n  ".join([f"{notebooks.relative(path)} is not stored:", *wrong]))
    notebooks.write(path, result)
    return {"seconds": round(seconds, 1), "peak_mb": round(peak / 1e6), "stored_kb": round(size / 1e3)}


def stale(path: Path) -> bool:
    """Return whether a notebook's stored outputs are older than what they depend on.

    Args:
        path: the ``.ipynb`` file.
    """
    content = notebooks.read(path)
    return content["metadata"].get("kexue", {}).get("fingerprint") != notebooks.fingerprint(content)


def record(measured: dict[str, dict[str, float]]) -> None:
    """Add rows to the committed table and drop those of notebooks that are gone.

    Args:
        measured: path of the notebook → what ``execute`` returned.
    """
    table = json.loads(MEASURED.read_text()) if MEASURED.exists() else {}
    table.update(measured)
    names = {notebooks.relative(p) for p in notebooks.all_notebooks()}
    MEASURED.parent.mkdir(parents=True, exist_ok=True)
    rows = {name: row for name, row in sorted(table.items()) if name in names}
    MEASURED.write_text(json.dumps(rows, indent=1) + "\n")


def main() -> int:
    """Execute what the arguments ask for, in parallel, with a progress bar."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("paths", nargs="*", type=Path, help="notebooks (default: all that are stale)")
    parser.add_argument("--all", action="store_true", help="also those that did not change")
    parser.add_argument("--jobs", type=int, default=2, help="notebooks at a time (default: 2)")
    parser.add_argument("--check", action="store_true", help="only list the stale ones; exit 1 if there are any")
    options = parser.parse_args()
    chosen = options.paths or [p for p in notebooks.all_notebooks() if options.all or stale(p)]
    if options.check or not chosen:
        print("\n".join(f"stale: {notebooks.relative(p)}" for p in chosen) or "every notebook's outputs are current")
        return int(bool(chosen))
    cells = sum(len(list(notebooks.code_cells(notebooks.read(p)))) for p in chosen)
    measured, failed = {}, []
    with (
        tqdm(total=cells, unit="cell", desc=f"{len(chosen)} notebooks") as bar,
        ThreadPoolExecutor(options.jobs) as pool,
    ):
        running = {pool.submit(execute, p.resolve(), bar): p for p in chosen}
        for done in as_completed(running):
            try:
                measured[notebooks.relative(running[done])] = done.result()
            except Exception as error:
                failed.append(str(error))
    record(measured)
    for name, row in sorted(measured.items()):
        print(f"{name}: {row['seconds']} s, {row['peak_mb']} MB, {row['stored_kb']} kB stored")
    print("\n".join(failed), file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
