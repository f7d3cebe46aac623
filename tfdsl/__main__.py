"""`python -m tfdsl`: the command line, also installed as `tfm`."""

from tfdsl.cli import tfm

if __name__ == "__main__":
    tfm(prog_name="tfm")
