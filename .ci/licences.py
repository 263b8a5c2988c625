"""Checks licences and sources against deny.toml, by `cargo deny` where it is installed.

It is not installed here for that alone: building it takes longer than all the tests. Without it the allow-list of deny.toml is
held against what `cargo metadata` says of every package that a user of the published crates builds.
"""
import pathlib
import re
import shutil
import subprocess
import sys
import tomllib

from meta import metadata, shipped

if shutil.which("cargo-deny"):
    sys.exit(subprocess.run(["cargo", "deny", "--all-features", "check", "licenses", "bans", "sources"]).returncode)

deny = tomllib.loads(pathlib.Path(__file__).parent.parent.joinpath("deny.toml").read_text())
allowed = set(deny["licenses"]["allow"])
banned = {ban["crate"]: ban for ban in deny["bans"]["deny"]}
packages, published, built = shipped()
problems = []
for node in built:
    package = packages[node]
    name = f"{package['name']} {package['version']}"
    expression = (package["license"] or "").replace("/", " OR ")
    # Every part of an AND must be allowed; one part of an OR.
    if not all(
        any(term.strip("() ") in allowed for term in re.split(r"\bOR\b", part))
        for part in re.split(r"\bAND\b", expression)
    ):
        problems.append(f"{name}: licence {expression!r} is not allowed by deny.toml")
    if package["source"] and not package["source"].startswith("registry+"):
        problems.append(f"{name} comes from {package['source']}")
    if package["name"] in banned:
        ban = banned[package["name"]]
        users = {
            packages[n["id"]]["name"]
            for n in metadata()["resolve"]["nodes"]
            if any(dep["pkg"] == node for dep in n["deps"])
        }
        # As in cargo-deny: where wrappers are named, they alone may depend on it.
        if not users <= set(ban.get("wrappers", [])):
            problems.append(f"{name} is banned: {ban['reason']}; used by {', '.join(sorted(users))}")
print(f"{len(built)} packages, {len(problems)} problems (cargo-deny is not installed; checked by its allow-list)")
sys.exit("\n".join(problems) if problems else 0)
