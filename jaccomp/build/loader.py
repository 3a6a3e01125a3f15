"""Binary to module, under a name of its own: a kernel called `rmsnorm` never becomes, or replaces, what `import
rmsnorm` gives.
"""

from __future__ import annotations

import hashlib
import sys
import threading
from importlib.machinery import ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from jaccomp.errors import BuildError

_LOADING = threading.RLock()


def load_module(name: str, path: Path) -> ModuleType:
    """The module `name` compiled at `path`; the same object for the same content in one process.

    It stands in `sys.modules` as `_jaccomp_DIGEST.name`. An `ImportError` of its own passes through (a module built
    for another CPU raises one); a file that is not a loadable module is a `BuildError`.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BuildError(f"module {name}", f"{path} cannot be read: {error.strerror}.", "Build it again.") from None
    unique = f"_jaccomp_{hashlib.sha256(content).hexdigest()[:16]}.{name}"
    with _LOADING:
        module = sys.modules.get(unique)
        return module if module is not None else _load(name, unique, path)


def _load(name: str, unique: str, path: Path) -> ModuleType:
    loader = ExtensionFileLoader(unique, str(path))
    spec = spec_from_file_location(unique, path, loader=loader)
    if spec is None:
        raise BuildError(f"module {name}", f"{path} is not an extension module.", "Build it again.")
    before = sys.modules.get(name)
    module = module_from_spec(spec)
    sys.modules[unique] = module
    try:
        loader.exec_module(module)
    except BaseException:
        del sys.modules[unique]
        raise
    finally:
        # Cython enters a module under the name it was compiled by, if that is free
        # (ModuleNode.generate_module_init_func).
        if before is None and sys.modules.get(name) is module:
            del sys.modules[name]
    return module
