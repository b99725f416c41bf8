"""`python -m paretune`: the command line, for where the `paretune` script is not on the path."""

from paretune.cli import main

if __name__ == "__main__":
    main()
