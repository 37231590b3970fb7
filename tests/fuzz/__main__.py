"""`python -m fuzz NAME --minutes M --seed N`: runs `fuzz.NAME.main`. The exit code is 1 when it found something."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import random
import sys
from pathlib import Path
from typing import Any


def _module(name: str) -> Any:
    return importlib.import_module(f"fuzz.{name}")


def main() -> int:
    here = Path(__file__).parent
    names = sorted(one.name for one in pkgutil.iter_modules([str(here)]) if not one.name.startswith("_"))
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("name", choices=[name for name in names if hasattr(_module(name), "main")])
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    given = parser.parse_args()
    print(f"fuzz {given.name}: {given.minutes:g} min, --seed {given.seed}", flush=True)
    return int(_module(given.name).main(given.minutes, given.seed))


if __name__ == "__main__":
    sys.exit(main())
