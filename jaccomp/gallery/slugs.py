"""File names for layers: a layer may have any name, a file may not."""

from __future__ import annotations

import re
from hashlib import sha256

# Windows opens a device for each of these, whatever stands after the dot; `index` is the site's own page.
TAKEN = frozenset({"con", "prn", "aux", "nul", "index", *(f"{one}{k}" for one in ("com", "lpt") for k in range(10))})
LONGEST = 60
_PLAIN = re.compile(r"[a-z][a-z0-9_]*")
_NOT_PLAIN = re.compile(r"[^a-z0-9_]+")


def slug(name: str) -> str:
    """A file name that is safe on every system, and no other name's.

    softmax -> softmax      SoftMax -> softmax-3c9d51f0      ../x -> x-5b0a77c1      con -> con-8d1e0f42

    Lower-case ASCII stands as it is. What is not, is marked with a digest of the whole name, so that names which
    differ in case alone have files of their own where the file system sees no difference.
    """
    if _PLAIN.fullmatch(name) and name not in TAKEN and len(name) <= LONGEST:
        return name
    kept = _NOT_PLAIN.sub("-", name.lower()).strip("-")[:LONGEST] or "layer"
    return f"{kept}-{sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"
