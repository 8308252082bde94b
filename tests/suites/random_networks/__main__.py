"""Check random networks; exit code 1 if any is wrong, dies or hangs."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

from .check import FOUND, outcomes, shrunk, write
from .recipe import recipe_of


def main() -> int:
    """Read the command line, check, and print what was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.suites.random_networks")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0, help="of the first network")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--folder", type=Path, default=Path("build/random_networks"))
    parser.add_argument("--no-shrink", action="store_true")
    options = parser.parse_args()
    seeds = list(range(options.seed, options.seed + options.count))
    ends = outcomes(seeds, options.workers)
    for seed, end in zip(seeds, ends):
        if end.kind == "refused":
            print(f"seed {seed}: refused: {end.detail}")
        if end.kind not in FOUND:
            continue
        print(f"seed {seed}: {end.kind}: {end.detail}")
        print(f"  again: python -m tests.suites.random_networks --seed {seed} --count 1")
        if not options.no_shrink:
            small = shrunk(recipe_of(seed), end.kind)
            print(f"  shrunk to {write(small, options.folder)}: {small}")
    passed = [end.detail for end in ends if end.kind == "pass"]
    print(dict(Counter(end.kind for end in ends)))
    print(f"{sum(n for n, _ in passed)} outputs equal, {sum(n for _, n in passed)} layers compiled")
    return int(any(end.kind in FOUND for end in ends))


if __name__ == "__main__":
    sys.exit(main())
