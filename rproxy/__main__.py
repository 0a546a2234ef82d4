"""`python -m rproxy`: the same as the command `rproxy`."""

from rproxy.cli import main

if __name__ == "__main__":
    main(prog_name="rproxy")
