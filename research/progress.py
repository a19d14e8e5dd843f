"""A progress bar on a terminal, and one line per finished epoch anywhere else."""

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

Item = TypeVar("Item")


def progress(items: Iterable[Item], label: str) -> Iterator[Item]:
    total = len(items) if isinstance(items, Sized) else 0
    start = time.monotonic()
    shown = 0.0
    for count, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if sys.stderr.isatty() and total and (now - shown > 0.2 or count == total):
            shown = now
            filled = "#" * (30 * count // total)
            left = (now - start) / count * (total - count)
            print(f"\r{label} [{filled:<30}] {count}/{total} {left:4.0f} s left", end="", file=sys.stderr, flush=True)
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr)


def report(line: str) -> None:
    print(line, flush=True)
