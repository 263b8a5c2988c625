"""Prints a command of the README: the line after the marker `<!-- command: NAME -->`."""
import pathlib
import re
import sys

text = pathlib.Path(__file__).parent.parent.joinpath("README.md").read_text()
found = re.findall(r"<!-- command: %s -->\s*```console\n\$ (.+)\n" % re.escape(sys.argv[1]), text)
if len(found) != 1:
    sys.exit(f"README.md has {len(found)} commands marked {sys.argv[1]!r}, one is wanted")
print(found[0])
