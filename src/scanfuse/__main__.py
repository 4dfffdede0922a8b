"""`python -m scanfuse` is the same as `scanfuse`."""

import sys

from scanfuse.cli import main

sys.exit(main())
