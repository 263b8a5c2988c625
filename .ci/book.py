"""Checks the book: links resolve, every page is in the summary, every test that the contract names exists and no id is twice."""
import pathlib
import re
import sys

root = pathlib.Path(__file__).parent.parent
docs = root / "docs"
problems = []
pages = [p for p in docs.rglob("*.md") if "book" not in p.relative_to(docs).parts]
summary = docs.joinpath("SUMMARY.md").read_text()
for page in pages + [root / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")]:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        if not re.match(r"[a-z]+:", target) and not (page.parent / target).exists():
            problems.append(f"{page.relative_to(root)}: link to {target}, which is not there")
for page in pages:
    name = page.relative_to(docs).as_posix()
    if name != "SUMMARY.md" and f"({name})" not in summary:
        problems.append(f"docs/{name} is not in SUMMARY.md")

sources = [p for folder in ("crates", "tests", "examples") for p in (root / folder).rglob("*.rs")]
code = "\n".join(p.read_text() for p in sources)
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
