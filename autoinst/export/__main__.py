"""The exporters' own process, which the agent starts by this file's path."""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    # By path, Python has put this folder first; what is wanted is the one that holds the package.
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    from autoinst.export.service import main

    sys.exit(main())
