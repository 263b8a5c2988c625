"""What the checks share: the packages that a user of the published crates builds."""
import functools
import json
import subprocess


@functools.cache
def metadata():
    return json.loads(subprocess.check_output(["cargo", "metadata", "--all-features", "--format-version", "1"]))


def shipped():
    """(all packages by id, ids of the published members, ids of all that a user of them may build)."""
    meta = metadata()
    packages = {p["id"]: p for p in meta["packages"]}
    published = [m for m in meta["workspace_members"] if packages[m]["publish"] != []]
    return packages, published, closure(*published)


def closure(*members, without=()):
    """Ids of all that a user of these may build, without some and what only they need."""
    nodes = {n["id"]: n for n in metadata()["resolve"]["nodes"]}
    seen, todo = set(), list(members)
    while todo:
        node = todo.pop()
        if node in seen or node in without:
            continue
        seen.add(node)
        for dep in nodes[node]["deps"]:
            if any(kind["kind"] in (None, "build") for kind in dep["dep_kinds"]):
                todo.append(dep["pkg"])
    return sorted(seen)
