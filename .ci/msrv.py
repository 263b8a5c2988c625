"""Checks what can be checked of the minimum Rust version without that toolchain.

Every crate states it, the resolver is the one that respects it, and no dependency that a user of the libraries builds asks for
a newer one. (Dependencies of tests, benches and examples may.)
"""
import pathlib
import sys
import tomllib

from meta import shipped

workspace = tomllib.loads(pathlib.Path(__file__).parent.parent.joinpath("Cargo.toml").read_text())["workspace"]
msrv = workspace["package"]["rust-version"]
problems = []
if workspace["resolver"] != "3":
    problems.append('resolver must be "3": it picks dependencies that the minimum version can build')


def version(text):
    return tuple(int(part) for part in (text.split(".") + ["0", "0"])[:3])


packages, published, built = shipped()
for member in published:
    if not packages[member]["rust_version"]:
        problems.append(f"{packages[member]['name']} states no rust-version")
for node in built:
    package = packages[node]
    wants = package["rust_version"]
    if node not in published and wants and version(wants) > version(msrv):
        problems.append(f"{package['name']} {package['version']} wants Rust {wants}, the minimum is {msrv}")
print(f"{len(built)} packages a user may build, minimum Rust {msrv}: {len(problems)} problems")
sys.exit("\n".join(problems) if problems else 0)
