"""How long from the start of a fresh process to a painted window.

    python tests/benchmarks/bench_startup.py [RUNS]

Each process gets empty folders of its own for runs, cache and settings. The first start warms the disk cache and is
not counted. The clock begins before the process is made and ends when the window has painted for the first time.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LIMIT = 1.0
APP = Path(__file__).resolve().parents[2] / "app"

CHILD = """
import sys, time
from tunedesk.gui.app import main

def ready(window):
    window.painted.disconnect()
    window.painted.connect(lambda: (print(time.time(), flush=True), window.close()))

code = main([], ready=ready)
heavy = sorted({"torch", "transformers", "peft", "datasets", "bitsandbytes"} & sys.modules.keys())
print("heavy:", *heavy)
sys.exit(code)
"""


def start_once() -> float:
    """Seconds from the start of the process to the first painted window."""
    with tempfile.TemporaryDirectory() as folder:
        places = {name: str(Path(folder) / name) for name in ("TUNEDESK_HOME", "TUNEDESK_CACHE", "TUNEDESK_CONFIG")}
        environment = {**os.environ, **places, "PYTHONPATH": str(APP)}
        environment.setdefault("QT_QPA_PLATFORM", "offscreen")
        began = time.time()
        done = subprocess.run(
            [sys.executable, "-c", CHILD], env=environment, capture_output=True, text=True, timeout=120, check=False
        )
    if done.returncode != 0 or "heavy:\n" not in done.stdout:
        raise SystemExit(f"The window did not start as it should:\n{done.stdout}{done.stderr}")
    return float(done.stdout.splitlines()[0]) - began


def main(runs: int = 10) -> int:
    """Measure, print the distribution; exit status 1 when the median is over the limit."""
    start_once()
    seconds = sorted(start_once() for _ in range(runs))
    median = statistics.median(seconds)
    print("seconds to a painted window, sorted:", " ".join(f"{value:.3f}" for value in seconds))
    print(f"min {seconds[0]:.3f}  median {median:.3f}  max {seconds[-1]:.3f}  limit {LIMIT:.1f} (median of {runs})")
    return 0 if median < LIMIT else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 10))
