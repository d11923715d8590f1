"""All commands behind one name: `xray-search run …`, or `python -m search run …`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from search import cli
from search.config import nearest

COMMANDS = {
    "run": ("search.run", "search, retrain, score and export"),
    "watch": ("search.watch", "watch a run from another terminal"),
    "report": ("search.report", "print or share the report of a run"),
    "predict": ("search.predict", "probabilities for images"),
    "evaluate": ("search.evaluate", "score a model on labelled images"),
    "data": ("search.data.__main__", "look at a data set before searching"),
    "ablate": ("search.ablate", "what each hyperparameter is worth"),
}
"""Module and description by name; a module is imported when its command is used."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command named first with the rest; print the list for none."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help"):
        print("usage: xray-search COMMAND [OPTIONS]\n")
        for name, (_, about) in COMMANDS.items():
            print(f"  {name:10}{about}")
        print("\nxray-search COMMAND --help lists the options of one")
        return 0 if given else 2
    if given[0] not in COMMANDS:
        print(
            f"error: {given[0]}: there is no such command; choose one of {', '.join(COMMANDS)}"
            f"{nearest(given[0], COMMANDS)}",
            file=sys.stderr,
        )
        return 2
    code: int = importlib.import_module(COMMANDS[given[0]][0]).main(given[1:])
    return code


def script() -> int:
    """Run the console script `xray-search`."""
    return cli.execute(main)


if __name__ == "__main__":
    sys.exit(script())
