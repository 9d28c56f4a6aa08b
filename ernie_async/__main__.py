"""`python -m ernie_async`, and the console script `ernie-async`."""

import sys

__all__ = ["main"]

LIBRARIES = {"cyclopts", "rich"}


def main() -> int:
    """Hand over to `cli`; say what to install if its libraries are missing."""
    try:
        from ernie_async import cli  # the libraries of an extra
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in LIBRARIES:
            raise
        sys.stderr.write("ernie-async: this command needs pip install 'ernie-async[cli]'\n")
        return 2
    except KeyboardInterrupt:
        return 130
    return cli.main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
