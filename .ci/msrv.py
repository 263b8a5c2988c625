"""Checks what can be checked of the minimum Rust version without that toolchain.

Every crate states it, the resolver is the one that respects it, and no dependency that a user of the libraries builds asks for
a newer one. (Dependencies of tests, benches and examples may.)
"""
import pathlib
import sys
import tomllib

from meta import closure, shipped

# Crates whose minimum is that of a dependency that nothing replaces. A feature of the facade that takes one in has that minimum too.
LATER = {"tollgate-ledger"}

workspace = tomllib.loads(pathlib.Path(__file__).parent.parent.joinpath("Cargo.toml").read_text())["workspace"]
msrv = workspace["package"]["rust-version"]
problems = []
if workspace["resolver"] != "3":
    problems.append('resolver must be "3": it picks dependencies that the minimum version can build')


def version(text):
    return tuple(int(part) for part in (text.split(".") + ["0", "0"])[:3])


packages, published, built = shipped()
later = {member for member in published if packages[member]["name"] in LATER}
for member in published:
    name, states = packages[member]["name"], packages[member]["rust_version"]
    if not states:
        problems.append(f"{name} states no rust-version")
    elif name not in LATER and states != msrv:
        problems.append(f"{name} states Rust {states}, the workspace {msrv}")
for member in published:
    name, states = packages[member]["name"], packages[member]["rust_version"] or msrv
    for node in closure(member, without=later - {member}):
        package = packages[node]
        wants = package["rust_version"]
        if wants and version(wants) > version(states):
            problems.append(f"{package['name']} {package['version']} wants Rust {wants}, {name} states {states}")
print(f"{len(built)} packages a user may build, minimum Rust {msrv}: {len(problems)} problems")
sys.exit("\n".join(problems) if problems else 0)
