"""`python -m tfdsl`: the command line, also installed as `tfm`."""

from tfdsl.cli import main

if __name__ == "__main__":
    main()
