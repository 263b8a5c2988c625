"""Checks each crate with no feature and with each of its features alone, and denies what that leaves unused."""
import json
import os
import subprocess
import sys

meta = json.loads(subprocess.check_output(["cargo", "metadata", "--no-deps", "--format-version", "1"]))
env = os.environ | {"RUSTFLAGS": "-D unused_imports -D dead_code -D unused_variables"}
for package in meta["packages"]:
    if package["publish"] == []:
        continue
    features = [f for f in package["features"] if f != "default"]
    for feature in [None, *features]:
        # `--lib` is enough: binaries and tests are built with all features elsewhere.
        command = ["cargo", "check", "--quiet", "--lib", "-p", package["name"], "--no-default-features"]
        if feature:
            command += ["--features", feature]
        print("$", " ".join(command), flush=True)
        if subprocess.run(command, env=env).returncode:
            sys.exit(1)
