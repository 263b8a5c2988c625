"""What the checks share: the packages that a user of the published crates builds."""
import json
import subprocess


def shipped():
    """(all packages by id, ids of the published members, ids of all that a user of them may build)."""
    meta = json.loads(subprocess.check_output(["cargo", "metadata", "--all-features", "--format-version", "1"]))
    packages = {p["id"]: p for p in meta["packages"]}
    published = [m for m in meta["workspace_members"] if packages[m]["publish"] != []]
    nodes = {n["id"]: n for n in meta["resolve"]["nodes"]}
    seen, todo = set(), list(published)
    while todo:
        node = todo.pop()
        if node in seen:
            continue
        seen.add(node)
        for dep in nodes[node]["deps"]:
            if any(kind["kind"] in (None, "build") for kind in dep["dep_kinds"]):
                todo.append(dep["pkg"])
    return packages, published, sorted(seen)
