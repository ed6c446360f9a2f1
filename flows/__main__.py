"""The command line: `python -m cuvee.flows` and the script `cuvee`."""

from cuvee.flows.cli.main import main

if __name__ == "__main__":
    main()
