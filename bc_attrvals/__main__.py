"""`python -m bc_attrvals`: the command line, for where its script is not on the path."""

from bc_attrvals.cli import main

if __name__ == "__main__":
    main()
