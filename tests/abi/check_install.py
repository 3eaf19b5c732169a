#!/usr/bin/env python3
"""What `cmake --install` leaves is enough for a tenant: it is found by pkg-config, builds in C and C++, and runs.

usage: check_install.py BUILD_DIRECTORY
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

MISSING = "/nonexistent/vswitch.sock"
C = f"""#include <stdio.h>
#include <vswitch/vswitch.h>
int main(void) {{
  struct vswitch_port *port;
  if (vswitch_attach("{MISSING}", NULL, &port) != 0) {{
    fprintf(stderr, "%s\\n", vswitch_attach_error());
    return 3;
  }}
  vswitch_detach(port);
  return 0;
}}
"""
CPP = f"""#include <iostream>
#include <vswitch/vswitch.hpp>
int main() try {{
  const vswitch::tenant::Port port("{MISSING}");
  return 0;
}} catch (const std::system_error& error) {{
  std::cerr << error.what() << '\\n';
  return 3;
}}
"""
PROGRAMS = [("gcc", "c", "c11", C), ("clang-14", "c", "c11", C), ("g++", "c++", "c++20", CPP),
            ("clang++-14", "c++", "c++20", CPP)]


def run(*command, **keys):
    return subprocess.run([str(c) for c in command], capture_output=True, text=True, **keys)


def pkg_config(prefix, *arguments):
    places = ":".join(str(f.parent) for f in prefix.rglob("vswitch.pc"))
    done = run("pkg-config", *arguments, "vswitch", env={**os.environ, "PKG_CONFIG_LIBDIR": places})
    if done.returncode:
        raise SystemExit(f"pkg-config {' '.join(arguments)} vswitch: {done.stderr}")
    return done.stdout.split()


def check_tenant(prefix, compiler, language, standard, source):
    """What is wrong with one program, or None."""
    flags = pkg_config(prefix, "--cflags", "--libs")
    folder = pkg_config(prefix, "--variable=libdir")[0]
    program = prefix / f"tenant-{compiler}"
    built = run(compiler, f"-x{language}", f"-std={standard}", "-pedantic-errors", "-Wall", "-Wextra", "-Wshadow",
                "-Wconversion", "-Werror", "-", "-o", program, *flags, input=source)
    if built.returncode:
        return f"{compiler}: a tenant does not build against what was installed:\n{built.stderr}"
    ran = run(program, env={**os.environ, "LD_LIBRARY_PATH": folder})
    if ran.returncode != 3 or f"connect to {MISSING}: No such file or directory" not in ran.stderr:
        return f"{compiler}: without a switch a tenant ends with {ran.returncode}: {ran.stderr}"
    return None


def check(build, prefix):
    installed = run("cmake", "--install", build, "--component", "client", "--prefix", prefix)
    if installed.returncode:
        yield f"cmake --install: {installed.stderr}"
        return
    stray = [f for f in prefix.rglob("*") if f.is_file() and f.parent.name not in ("lib", "pkgconfig", "vswitch")
             and not f.parent.name.endswith("-linux-gnu")]
    yield from (f"{f} is installed where nobody looks for it" for f in stray)
    version = pkg_config(prefix, "--modversion")[0]
    if not list(prefix.rglob(f"libvswitch.so.{version}")):
        yield f"pkg-config says version {version}, no libvswitch.so.{version} is there"
    for program in PROGRAMS:
        wrong = check_tenant(prefix, *program)
        if wrong:
            yield wrong


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    with tempfile.TemporaryDirectory(prefix="vswitch-install-") as prefix:
        wrong = list(check(Path(sys.argv[1]).resolve(), Path(prefix)))
    print("\n".join(wrong) if wrong else f"libvswitch: found by pkg-config; tenants build with {len(PROGRAMS)} compilers")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
