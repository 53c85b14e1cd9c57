"""Side-by-side timing: candidates take turns within one process, so that a busy machine slows all of them alike.

    report = Report("Smooth Top-k")
    report.compare("forward, (64, 1024)", {"ours": f, "peer": g}, baseline="peer")
    report.finish("distributions/smooth_topk")  # with --save: benchmarks/results/distributions/smooth_topk.json

Every round runs each candidate once, in an order that rotates. A ratio is the median over rounds of the ratio within a
round, and its spread the middle half of the rounds; a time is the median over rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

import torch

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Timing:
    """One row: median time, and time over the baseline's with the quartiles of that ratio."""

    name: str
    milliseconds: float
    ratio: float
    ratio_quartiles: tuple[float, float]


@dataclass(frozen=True)
class Comparison:
    """The candidates of one task."""

    title: str
    baseline: str
    threads: int
    rounds: int
    timings: list[Timing]


def interleaved(
    candidates: Mapping[str, Callable[[], object]], *, rounds: int = 25, warmup: int = 2, seconds: float = 30.0
) -> dict[str, list[float]]:
    """Seconds of each candidate in each round; fewer rounds (at least five) once `seconds` have passed."""
    names = list(candidates)
    times: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(warmup):
        for run in candidates.values():
            run()
    start = time.perf_counter()
    for index in range(rounds):
        if index >= 5 and time.perf_counter() - start > seconds:
            break
        for name in names[index % len(names) :] + names[: index % len(names)]:
            _synchronise()
            begin = time.perf_counter()
            candidates[name]()
            _synchronise()
            times[name].append(time.perf_counter() - begin)
    return times


def compare(
    title: str, candidates: Mapping[str, Callable[[], object]], *, baseline: str, **options: float
) -> Comparison:
    """Time the candidates against one of them."""
    if baseline not in candidates:
        raise ValueError(f"baseline must be one of {sorted(candidates)}, got {baseline!r}")
    times = interleaved(candidates, **options)
    timings = []
    for name, seconds in times.items():
        ratios = [t / b for t, b in zip(seconds, times[baseline])]
        low, middle, high = statistics.quantiles(ratios, n=4)
        timings.append(Timing(name, 1e3 * statistics.median(seconds), middle, (low, high)))
    return Comparison(title, baseline, torch.get_num_threads(), len(times[baseline]), timings)


def machine() -> dict[str, str]:
    """What the numbers depend on."""
    cpu = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), cpu)
    return {
        "cpu": f"{cpu}, {os.cpu_count()} cores",
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


@dataclass
class Report:
    """All comparisons and checked numbers of a chapter, printed as they come."""

    title: str
    peers: tuple[str, ...] = ()
    comparisons: list[Comparison] = field(default_factory=list)
    numbers: dict[str, float] = field(default_factory=dict)

    def compare(self, title: str, candidates: Mapping[str, Callable[[], object]], *, baseline: str, **options: float):
        """Time the candidates and print their table."""
        self.comparisons.append(compare(title, candidates, baseline=baseline, **options))
        print(_markdown(self.comparisons[-1]), flush=True)

    def number(self, title: str, value: float) -> None:
        """A number that is no time: an error, a share, a size."""
        self.numbers[title] = value
        print(f"{title}: {value:.3g}", flush=True)

    def finish(self, name: str) -> None:
        """With `--save` on the command line write benchmarks/results/<name>.json and .md."""
        parser = argparse.ArgumentParser(description=self.title)
        parser.add_argument("--save", action="store_true", help=f"write benchmarks/results/{name}.json and .md")
        if parser.parse_args().save:
            path = RESULTS / f"{name}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(self.content(), indent=1, ensure_ascii=False) + "\n")
            path.with_suffix(".md").write_text(self.markdown())

    def content(self) -> dict:
        """What the JSON file holds."""
        return {
            "title": self.title,
            "measured": datetime.now(timezone.utc).date().isoformat(),
            "machine": machine(),
            "peers": {peer: version(peer) for peer in self.peers},
            "comparisons": [asdict(c) for c in self.comparisons],
            "numbers": self.numbers,
        }

    def markdown(self) -> str:
        """The same as a page."""
        content = self.content()
        setting = [*content["machine"].items(), *content["peers"].items()]
        lines = [f"# {self.title}", "", f"Measured {content['measured']}: " + ", ".join(f"{k} {v}" for k, v in setting)]
        tables = [_markdown(c) for c in self.comparisons]
        numbers = [f"- {title}: {value:.3g}" for title, value in self.numbers.items()]
        return "\n".join([*lines, "", *tables, *numbers]) + "\n"


def _markdown(comparison: Comparison) -> str:
    threads = f"{comparison.threads} thread{'s' if comparison.threads > 1 else ''}"
    width = max(len(t.name) for t in comparison.timings)
    rows = [f"| {'':{width}} |       ms | × {comparison.baseline} | middle half |", f"|:{'-' * width}-|---:|---:|---:|"]
    for t in comparison.timings:
        low, high = t.ratio_quartiles
        rows.append(f"| {t.name:{width}} | {t.milliseconds:8.2f} | {t.ratio:.2f} | {low:.2f}–{high:.2f} |")
    return "\n".join([f"## {comparison.title} ({threads}, {comparison.rounds} rounds)", "", *rows, ""])


def _synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
