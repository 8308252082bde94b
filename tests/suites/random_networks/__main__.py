"""Check random networks; exit code 1 if any is wrong, dies or hangs."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

from tests.suites.isolated import Outcome

from .check import FOUND, command, outcomes, recipes_of, shrunk, write
from .recipe import FRAMEWORKS


def main() -> int:
    """Read the command line, check, and print what was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.suites.random_networks")
    parser.add_argument("--kind", choices=(*FRAMEWORKS, "both"), default="both")
    parser.add_argument("--count", type=int, default=100, help="of seeds")
    parser.add_argument("--seed", type=int, default=0, help="of the first network")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--folder", type=Path, default=Path("build/random_networks"))
    parser.add_argument("--no-shrink", action="store_true")
    options = parser.parse_args()
    seeds = list(range(options.seed, options.seed + options.count))
    frameworks = FRAMEWORKS if options.kind == "both" else (options.kind,)
    recipes = recipes_of(seeds, frameworks)

    def tell(index: int, end: Outcome) -> None:
        recipe = recipes[index]
        if end.kind != "pass":
            print(f"{recipe.framework}, seed {recipe.seed}: {end.kind}: {end.detail}", flush=True)
        if end.kind in FOUND:
            print(f"  again: {command(recipe)}", flush=True)

    ends = outcomes(recipes, options.workers, tell)
    for recipe, end in zip(recipes, ends):
        if end.kind in FOUND and not options.no_shrink:
            small = shrunk(recipe, end.kind, options.workers)
            print(f"shrunk to {write(small, options.folder)}: {small}")
    for framework in frameworks:
        found = [end for recipe, end in zip(recipes, ends) if recipe.framework == framework]
        passed = [end.detail for end in found if end.kind == "pass"]
        print(f"{framework}: {dict(Counter(end.kind for end in found))}, ", end="")
        print(f"{sum(n for n, _ in passed)} outputs equal, {sum(n for _, n in passed)} layers")
    return int(any(end.kind in FOUND for end in ends))


if __name__ == "__main__":
    sys.exit(main())
