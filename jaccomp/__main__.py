"""`python -m jaccomp` is `jaccomp`."""

import sys

from jaccomp.cli import main

sys.exit(main())
