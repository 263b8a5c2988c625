"""Checks the book: links and anchors resolve, every page is in the summary, events and metrics are in the chapter on operations,
features in the README, examples in their chapter; all Rust code is compiled; every test that the contract names exists and no id is
twice."""
import pathlib
import re
import sys
import tomllib

root = pathlib.Path(__file__).parent.parent
docs = root / "docs"
problems = []
pages = [p for p in docs.rglob("*.md") if "book" not in p.relative_to(docs).parts]
summary = docs.joinpath("SUMMARY.md").read_text()


def anchors(page):
    """The anchors of a page's headings, as mdBook and GitHub make them."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
    heads = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", head.replace("`", "")).strip().lower().replace(" ", "-") for head in heads}


for page in pages + [root / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")]:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)]*))?\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        other = page.parent / target if target else page
        if not other.exists():
            problems.append(f"{page.relative_to(root)}: link to {target}, which is not there")
        elif anchor and anchor not in anchors(other):
            problems.append(f"{page.relative_to(root)}: link to {target}#{anchor}, a heading that is not there")
for page in pages:
    name = page.relative_to(docs).as_posix()
    if name != "SUMMARY.md" and f"({name})" not in summary:
        problems.append(f"docs/{name} is not in SUMMARY.md")

operations = docs.joinpath("operations.md").read_text()
for source in root.glob("crates/*/src/**/*.rs"):
    text = source.read_text()
    said = re.findall(r"tracing::(?:debug|info|warn|error)!\((?:[^()]|\([^()]*\))*?\"([^\"{}]* [^\"{}]*)\",?\s*\)", text)
    metrics = re.findall(r"(?:counter|gauge|histogram)!\(\s*\"([\w.]+)\"", text)
    for word in said + metrics:
        if word not in operations:
            problems.append(f"docs/operations.md does not name {word!r} of {source.relative_to(root)}")
facade = tomllib.loads(root.joinpath("crates/tollgate/Cargo.toml").read_text())
for page in ("README.md", "crates/tollgate/src/lib.rs"):
    for feature in facade["features"]:
        if feature != "default" and f"| `{feature}` |" not in root.joinpath(page).read_text():
            problems.append(f"{page} does not name the feature {feature!r}")

examples = docs.joinpath("examples.md").read_text()
for manifest in (root / "examples").rglob("Cargo.toml"):
    for example in tomllib.loads(manifest.read_text()).get("example", []):
        if f"| `{example['name']}` |" not in examples:
            problems.append(f"docs/examples.md does not name the example {example['name']}")

sources = [p for folder in ("crates", "tests", "examples") for p in (root / folder).rglob("*.rs")]
code = "\n".join(p.read_text() for p in sources)
for page in pages + [root / "README.md", *root.glob("crates/*/README.md")]:
    blocks = re.findall(r"^```rust([^\n]*)\n(.*?)^```", page.read_text(), re.M | re.S)
    if any(kind != ",ignore" for kind, _ in blocks) and not re.search(r'include_str!\("[./]*%s"\)' % re.escape(
            page.relative_to(page.parent if page.parent.parent.name == "crates" else root).as_posix()), code):
        problems.append(f"{page.relative_to(root)}: its code is not compiled")
    for kind, text in blocks:
        if "ignore" in kind and not text.startswith("// Not compiled"):
            problems.append(f"{page.relative_to(root)}: a block is left out without a reason")

contract = docs.joinpath("contract.md").read_text()
rows = re.findall(r"^\| ([RTFUXL]\d\d) \|.*\| (.*) \|$", contract, re.M)
for case, tests in rows:
    for test in re.findall(r"`(\w+)`", tests):
        if not re.search(r"\bfn %s\b" % test, code):
            problems.append(f"docs/contract.md: {case} names the test {test}, which does not exist")
ids = [case for case, _ in rows]
if len(ids) != len(set(ids)):
    problems.append("docs/contract.md has an id twice")
if len(ids) < 100:
    problems.append(f"docs/contract.md has {len(ids)} rows; the table's form has changed")
print(f"{len(pages)} pages, {len(ids)} cases, {len(problems)} problems")
sys.exit("\n".join(problems) if problems else 0)
