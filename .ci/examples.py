"""Runs every example that is not run elsewhere in the gate, each with the arguments it needs to end by itself."""
import os
import pathlib
import subprocess
import sys
import tempfile
import tomllib

examples = []
for manifest in [pathlib.Path("examples/Cargo.toml"), *pathlib.Path("examples").glob("*/Cargo.toml")]:
    manifest = tomllib.loads(manifest.read_text())
    examples += [(manifest["package"]["name"], example["name"]) for example in manifest["example"]]
packages = [part for package in sorted({package for package, _ in examples}) for part in ("-p", package)]
recorded = os.environ.get("TOLLGATE_RECORDED", "crates/tollgate-core/tests/fixtures")
# None: the README's main job, run by itself.
arguments = {
    "process_file": None,
    "failover": [],
    "figures": ["--help"],
    "gateway": ["--listen", "127.0.0.1:0", "--stop-after", "2"],
    "read_recorded": [recorded],
}
subprocess.run(["cargo", "build", "--quiet", "--release", *packages, "--examples"], check=True)
for package, name in examples:
    args = arguments.get(name, [])
    if args is None:
        continue
    print("$", name, *args, flush=True)
    command = ["cargo", "run", "--quiet", "--release", "-p", package, "--example", name, "--", *args]
    with tempfile.TemporaryFile() as out:
        done = subprocess.run(command, stdout=out, timeout=300)
        size = os.fstat(out.fileno()).st_size
    if done.returncode or size == 0:
        sys.exit(f"example {name} ended with {done.returncode} and {size} bytes of output")
