#!/usr/bin/env python3
"""The tenant's library keeps its word: headers that stand alone, and exactly the symbols of the version map.

usage: check_abi.py BUILD_DIRECTORY
"""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CLIENT = ROOT / "ports/client"
INCLUDE = CLIENT / "include"
STRICT = ["-pedantic-errors", "-Wall", "-Wextra", "-Wshadow", "-Wconversion", "-Werror", f"-I{INCLUDE}"]
# (what for, compiler, language, standard); C++17 because a tenant need not be as new as we are.
COMPILERS = [("C11", "gcc", "c", "c11"), ("C11", "clang-14", "c", "c11"), ("C17", "gcc", "c", "c17"),
             ("C++17", "g++", "c++", "c++17"), ("C++20", "g++", "c++", "c++20"), ("C++20", "clang++-14", "c++", "c++20")]


def compile_alone(header, compiler, language, standard):
    """The compiler's complaint about a file that includes nothing but `header`, twice; empty when there is none."""
    name = header.relative_to(INCLUDE)
    source = f"#include <{name}>\n#include <{name}>\nint vswitch_header_stands_alone;\n"
    done = subprocess.run([compiler, f"-x{language}", f"-std={standard}", *STRICT, "-fsyntax-only", "-"], input=source,
                          capture_output=True, text=True)
    return "" if done.returncode == 0 else done.stderr


def check_headers():
    headers = sorted(INCLUDE.rglob("*.h")) + sorted(INCLUDE.rglob("*.hpp"))
    if not headers:
        yield f"no header below {INCLUDE.relative_to(ROOT)}"
    for header in headers:
        for title, compiler, language, standard in COMPILERS:
            if shutil.which(compiler) is None:
                yield f"{compiler} is not installed"
            elif language == "c++" or header.suffix == ".h":
                if header.suffix == ".hpp" and title == "C++17":
                    continue  # the C++ wrapper is C++20
                complaint = compile_alone(header, compiler, language, standard)
                if complaint:
                    yield f"{header.relative_to(ROOT)} does not stand alone as {title} ({compiler}):\n{complaint}"


def mapped_symbols():
    """{symbol: version} of the version map."""
    text = re.sub(r"/\*.*?\*/|#.*", "", (CLIENT / "vswitch.map").read_text(), flags=re.S)
    symbols = {}
    for version, body in re.findall(r"(\w[\w.]*)\s*\{(.*?)\}", text, flags=re.S):
        exported = re.search(r"global\s*:(.*?)(?:local\s*:|$)", body, flags=re.S)
        for symbol in re.findall(r"(\w+)\s*;", exported[1] if exported else ""):
            symbols[symbol] = version
    return symbols


def exported_symbols(library):
    """{symbol: version} that the shared library defines for others."""
    listing = subprocess.run(["nm", "-D", "--defined-only", "--with-symbol-versions", library], check=True,
                             capture_output=True, text=True).stdout
    symbols = {}
    for line in listing.splitlines():
        kind, name = line.split()[-2:]
        symbol, _, version = name.partition("@")
        if kind != "A":  # the version itself
            symbols[symbol] = version.lstrip("@")
    return symbols


def check_symbols(build):
    library = build / "ports/client/libvswitch.so"
    if not library.exists():
        yield f"{library} is missing: build it first"
        return
    mapped, exported = mapped_symbols(), exported_symbols(library)
    for symbol in sorted(mapped.keys() | exported.keys()):
        if mapped.get(symbol) != exported.get(symbol):
            yield f"{symbol}: version map says {mapped.get(symbol)}, the library exports {exported.get(symbol)}"
    declared = set(re.findall(r"\b(vswitch_\w+)\s*\(", (INCLUDE / "vswitch/vswitch.h").read_text()))
    for symbol in sorted(mapped):
        if symbol not in declared:
            yield f"{symbol} is exported but vswitch.h does not declare it"


def check_linking(build):
    """A C program built with the installed way (header and library alone) links and starts."""
    program = "#include <vswitch/vswitch.h>\nint main(void) { return vswitch_attach_error() == 0; }\n"
    link = ["gcc", "-xc", "-std=c11", *STRICT, "-", f"-L{build}/ports/client", "-lvswitch",
            f"-Wl,-rpath,{build}/ports/client"]
    for sample in re.findall(r"```c\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.S):
        done = subprocess.run([*link, "-o", "/dev/null"], input=sample, capture_output=True, text=True)
        if done.returncode:
            yield f"the C program in README.md does not compile:\n{done.stderr}"
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([*link, "-o", f"{folder}/program"], input=program, capture_output=True, text=True)
        if done.returncode:
            yield f"a C program does not link with libvswitch:\n{done.stderr}"
        elif subprocess.run([f"{folder}/program"]).returncode:
            yield "a C program linked with libvswitch does not run"
    needed = subprocess.run(["readelf", "-d", build / "ports/client/libvswitch.so"], check=True, capture_output=True,
                            text=True).stdout
    for library in re.findall(r"NEEDED.*\[(.*)\]", needed):
        if not re.match(r"(libc|ld-linux[\w-]*)\.so", library):
            yield f"libvswitch.so needs {library}; it may depend on libc alone"


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    build = Path(sys.argv[1]).resolve()
    wrong = [*check_headers(), *check_symbols(build)]
    wrong += check_linking(build) if not wrong else []
    print("\n".join(wrong) if wrong else f"libvswitch: {len(mapped_symbols())} symbols, headers stand alone")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
