"""``python -m prismts`` is the command ``prism``."""

from prismts.cli import main

if __name__ == "__main__":
    main()
