"""``python -m fruits``: the command line."""

from __future__ import annotations

from fruits.cli.main import main

if __name__ == "__main__":
    main()
