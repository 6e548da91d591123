"""Run the command line with `python -m mstar_pl`."""

import sys

from mstar_pl.cli import main

if __name__ == "__main__":
    sys.exit(main())
