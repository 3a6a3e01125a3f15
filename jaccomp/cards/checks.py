"""The record of one run of the ladder, as a card keeps it."""

from __future__ import annotations

import math
import platform
from datetime import UTC, datetime
from importlib.metadata import version

from jaccomp.card import CheckRecord, CheckRow
from jaccomp.reference.report import Report

PACKAGES = ("jaccomp", "numpy", "scipy", "sympy", "cython")


def record(report: Report, at: datetime) -> CheckRecord:
    """A report with the time at which it was made, in UTC, and the versions that it was made with."""
    return CheckRecord(
        date=at.astimezone(UTC).isoformat(timespec="seconds"),
        versions=(("python", platform.python_version()), *((name, version(name)) for name in PACKAGES)),
        cases=len(report.rows),
        worst=max((_share(row.error, row.tolerance) for row in report.rows), default=math.nan),
        passed=report.passed,
        rows=tuple(
            CheckRow(r.dtype, r.what, r.reference, r.sizes, r.error, r.tolerance, r.passed)
            for r in report.summary().rows
        ),
    )


def _share(error: float, tolerance: float) -> float:
    """How much of its tolerance an error takes; an error that is no number is beyond any."""
    return math.inf if math.isnan(error) else error / tolerance if tolerance else (math.inf if error else 0.0)
