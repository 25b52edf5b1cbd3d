"""`python -m lab`."""

from alab import main

if __name__ == "__main__":
    main()
