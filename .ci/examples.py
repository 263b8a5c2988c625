"""Runs every example that is not run elsewhere in the gate, each with the arguments it needs to end by itself."""
import os
import subprocess
import sys
import tempfile
import tomllib

with open("examples/Cargo.toml", "rb") as manifest:
    examples = [e["name"] for e in tomllib.load(manifest)["example"]]
recorded = os.environ.get("TOLLGATE_RECORDED", "crates/tollgate-core/tests/fixtures")
# None: the README's main job, run by itself.
arguments = {"process_file": None, "figures": ["--help"], "read_recorded": [recorded]}
subprocess.run(["cargo", "build", "--quiet", "--release", "-p", "tollgate-examples", "--examples"], check=True)
for name in examples:
    args = arguments.get(name, [])
    if args is None:
        continue
    print("$", name, *args, flush=True)
    command = ["cargo", "run", "--quiet", "--release", "-p", "tollgate-examples", "--example", name, "--", *args]
    with tempfile.TemporaryFile() as out:
        done = subprocess.run(command, stdout=out, timeout=300)
        size = os.fstat(out.fileno()).st_size
    if done.returncode or size == 0:
        sys.exit(f"example {name} ended with {done.returncode} and {size} bytes of output")
