"""`python -m nemodiff`: the command line of `nemodiff.cli`."""

import sys

from nemodiff.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
