"""`python -m vecd` is `vecd`."""

from .daemon import main

if __name__ == "__main__":
    main()
