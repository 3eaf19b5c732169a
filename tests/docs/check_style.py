#!/usr/bin/env python3
"""The house style that a machine can judge: formatting, length of files, a README in each folder, clean man pages.

usage: check_style.py [BUILD_DIRECTORY]   (man pages generated there are linted too)
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MAX_LINES = 600
CODE = (".h", ".hpp", ".c", ".cpp")
SCRIPTS = (".py", ".sh")
# Folders that hold data only; what they are is said one level up.
NO_README_BELOW = ("tests/fuzz/corpus", "tests/unit/", "ports/client/", ".ci")
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")


def files():
    listed = subprocess.run(
        ["git", "-c", "safe.directory=*", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"],
        check=True, capture_output=True, text=True).stdout.splitlines()
    return sorted(f for f in set(listed) if (ROOT / f).is_file())


def text_of(file):
    return (ROOT / file).read_text(errors="replace")


def check_length(all_files):
    for file in all_files:
        if file.endswith(CODE + SCRIPTS):
            lines = text_of(file).count("\n")
            if lines > MAX_LINES:
                yield f"{file}: {lines} lines, more than {MAX_LINES}: is it still one idea?"


def check_unfinished(all_files):
    for file in all_files:
        if file.endswith(CODE + SCRIPTS) and file != "tests/docs/check_style.py":
            for number, line in enumerate(text_of(file).splitlines(), 1):
                if UNFINISHED.search(line):
                    yield f"{file}:{number}: left undone: {line.strip()}"


def check_format(all_files):
    tool = shutil.which("clang-format-14") or shutil.which("clang-format")
    if tool is None:
        yield "clang-format is not installed (apt-get install clang-format-14)"
        return
    code = [f for f in all_files if f.endswith(CODE)]
    if not code:
        return
    result = subprocess.run([tool, "--dry-run", "-Werror", *code], cwd=ROOT, capture_output=True, text=True)
    wrong = sorted({line.split(":")[0] for line in result.stderr.splitlines() if ": error:" in line})
    if result.returncode and not wrong:
        yield f"{tool} failed: {result.stderr.strip()}"
    for file in wrong:
        yield f"{file}: not formatted (clang-format -i {file})"


def check_readmes(all_files):
    folders = {str(Path(f).parent) for f in all_files if f.endswith(CODE + SCRIPTS + (".in", ".json"))}
    for folder in sorted(folders):
        if folder.startswith((".", "cmake")) or any(folder.startswith(p) for p in NO_README_BELOW):
            continue
        if f"{folder}/README.md" not in all_files:
            yield f"{folder}: no README.md (what lives here, what may be included, in which order to read)"


def check_man(all_files, build):
    tool = shutil.which("mandoc")
    if tool is None:
        yield "mandoc is not installed (apt-get install mandoc)"
        return
    pages = [ROOT / f for f in all_files if re.fullmatch(r"man/[\w.-]+\.[1-8]", f)]
    if build:
        pages += sorted((build / "man").glob("*.[1-8]"))
    for page in pages:
        result = subprocess.run([tool, "-T", "lint", "-W", "warning", str(page)], capture_output=True, text=True)
        if result.returncode:
            yield result.stdout.strip() or result.stderr.strip()


def check_links(all_files):
    """Relative links of Markdown pages lead somewhere."""
    for file in (f for f in all_files if f.endswith(".md")):
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", text_of(file)):
            if not (ROOT / Path(file).parent / target).exists():
                yield f"{file}: the link {target} leads nowhere"


def main():
    build = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    all_files = files()
    wrong = [*check_length(all_files), *check_unfinished(all_files), *check_format(all_files),
             *check_readmes(all_files), *check_man(all_files, build), *check_links(all_files)]
    print("\n".join(wrong) if wrong else f"{len(all_files)} files in house style")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
