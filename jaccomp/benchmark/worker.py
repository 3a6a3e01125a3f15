"""One process that measures: a configuration of threads and allocator, all peers interleaved, row after row.

It reads a request, one JSON object, from standard input, and writes events, one JSON object a line, to what was
standard output when it began; what peers print goes to standard error.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from jaccomp.benchmark import process


def main() -> int:
    request = json.load(sys.stdin)
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    allocator = process.settle(request["threads"], request["allocator"])
    from jaccomp.benchmark.measuring import Measuring  # NumPy and peers: after threads and allocator are settled

    def emit(kind: str, value: Any) -> None:
        print(json.dumps({kind: value}), file=events, flush=True)

    measuring = Measuring(request["peers"], request["threads"], request["allocator"], request["seconds"])
    emit("about", {**measuring.about(), "allocator": allocator})
    for name, mode in request["todo"]:
        emit("begins", f"{name} {mode}")
        emit("row", measuring.row(name, mode))
    return 0


if __name__ == "__main__":
    sys.exit(main())
