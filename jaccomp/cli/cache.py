"""Look at the cache of compiled modules, or make it smaller."""

from __future__ import annotations

import argparse

from jaccomp.build import Stats, default_cache
from jaccomp.cli import console
from jaccomp.errors import UsageError

HELP = "the cache of compiled modules: what it holds, clear it, prune it"
UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "action", nargs="?", default="stats", choices=("stats", "path", "clear", "prune"), help="stats by default"
    )
    parser.add_argument("--max-size", metavar="SIZE", type=_size, help="prune to this many bytes; 500M, 2G")
    parser.add_argument("--max-days", metavar="DAYS", type=_days, help="prune what was not used for so long")
    parser.add_argument("--json", action="store_true", help='{"directory", "entries", "bytes", "removed"}')


def run(arguments: argparse.Namespace) -> int:
    limits = (arguments.max_size, arguments.max_days)
    if arguments.action == "prune" and limits == (None, None):
        raise UsageError("cache prune", "it was told no limit.", "Give --max-size or --max-days.")
    if arguments.action != "prune" and limits != (None, None):
        raise UsageError(f"cache {arguments.action}", "--max-size and --max-days are for prune.")
    cache = default_cache()
    if arguments.action == "path" and not arguments.json:
        print(cache.root)
        return 0
    removed = 0
    if arguments.action == "clear":
        removed = sum(cache.clear().entries.values())
    elif arguments.action == "prune":
        removed = cache.prune(max_bytes=arguments.max_size, max_days=arguments.max_days)
    stats = cache.stats()
    if arguments.json:
        print_stats = {"entries": stats.entries, "bytes": stats.bytes, "total": stats.total, "removed": removed}
        console.print_json({"directory": str(stats.directory), "private": stats.private, **print_stats})
    else:
        if arguments.action != "stats":
            print(f"removed {removed} {'entry' if removed == 1 else 'entries'}")
        print(_text(stats))
    return 0


def _text(stats: Stats) -> str:
    rows = [(kind, str(stats.entries[kind]), _bytes(stats.bytes[kind])) for kind in stats.entries]
    private = f" ({stats.private})" if stats.private else ""
    return f"{stats.directory}{private}\n" + console.indented(
        console.table([*rows, ("total", str(sum(stats.entries.values())), _bytes(stats.total))]).split("\n")
    )


def _bytes(count: int) -> str:
    return f"{count} B" if count < 10_000 else f"{count / 1000:.0f} kB" if count < 1e7 else f"{count / 1e6:.0f} MB"


def _size(text: str) -> int:
    number, unit = (text[:-1], text[-1].upper()) if text[-1:].isalpha() else (text, "")
    if unit not in UNITS or not number.isascii() or not number.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 500M")
    return int(number) * UNITS[unit]


def _days(text: str) -> float:
    try:
        days = float(text)
    except ValueError:
        days = -1.0
    if not 0 <= days < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of days")
    return days
