"""The agent's process, which is started by this file's path, and (`--apart`) the one that starts it for a program."""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    # By path, Python has put this folder first; what is wanted is the one that holds the package.
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    if sys.argv[1:2] == ["--apart"]:
        from autoinst.agent.launch import apart

        apart(int(sys.argv[2]))
    from autoinst.agent.service import main

    sys.exit(main(sys.argv[1:]))
