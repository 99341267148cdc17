"""``python -m pagopt`` is ``pagopt``."""

import sys

from pagopt.cli import main

sys.exit(main())
