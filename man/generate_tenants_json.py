#!/usr/bin/env python3
"""Writes the manual page tenants.json(5), in mdoc(7), from the schema of the configuration.

usage: generate_tenants_json.py SCHEMA OUTPUT
"""
import json
import re
import sys

SEE_ALSO = [("libvswitch", 3), ("machine-id", 5), ("vswitch-ring", 7), ("ethtool", 8), ("ip-link", 8), ("ip-netns", 8),
            ("vswitchctl", 8), ("vswitchd", 8)]
HEADER = """.\\" Made from config/tenants.schema.json: change that instead.
.Dd November 23, 2026
.Dt TENANTS.JSON 5
.Os
.Sh NAME
.Nm tenants.json
.Nd configuration of vswitchd
.Sh DESCRIPTION
"""
FORMAT = """.Pp
The file is JSON (RFC 8259) in UTF-8, without comments.
A key that is not described here, a key given twice and a value of the wrong form are errors.
.Bd -literal -offset indent
vswitchd --check --config tenants.json
.Ed
.Pp
says everything that is wrong with a file, line by line: the place, what was expected and what was found.
The daemon reads the file when it starts, and again on
.Dv SIGHUP
or
.Ql vswitchctl reload .
Ports that did not change lose no frame then.
A file with an error changes nothing.
.Pp
Below, words in capitals stand for names of your choice: letters, digits,
.Ql _ ,
.Ql \\&.
and
.Ql - ,
at most 63.
"""


def escape(text):
    """Text that roff prints as it is, also at the start of a line."""
    text = text.replace("\\", "\\e")
    return "\\&" + text if text[:1] in (".", "'") else text


def paragraph(text):
    """Running text: each sentence on its own line, name(section) as a reference."""
    lines = []
    for sentence in re.split(r"(?<=[.:]) (?=[A-Z\"])", text):
        parts = re.split(r"\b([a-z][\w.-]*)\((\d)\)([.,;:)]?)", sentence)
        for i in range(0, len(parts), 4):
            plain = parts[i].strip()
            if plain:
                lines.append(escape(plain))
            if i + 1 < len(parts):
                name, section, mark = parts[i + 1:i + 4]
                lines.append(f".Xr {name} {section}" + (f" {mark}" if mark else ""))
    return "\n".join(lines) + "\n"


class Page:
    def __init__(self, schema):
        self.schema = schema
        self.out = []

    def resolve(self, node):
        """The node a reference stands for, with what stands beside the reference on top."""
        if "$ref" not in node:
            return node
        target = self.schema
        for part in node["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        return {**self.resolve(target), **{key: value for key, value in node.items() if key != "$ref"}}

    def type_text(self, node):
        if "const" in node:
            return json.dumps(node["const"])
        if "enum" in node:
            return " | ".join(json.dumps(value) for value in node["enum"])
        kind = node["type"]
        if isinstance(kind, list):
            return " | ".join(kind)
        if kind == "array":
            items = self.resolve(node["items"])
            return "list of objects" if items["type"] == "object" else f"list of {items['type']}s"
        if kind == "integer" and "minimum" in node:
            kind += f" {node['minimum']}..{node['maximum']}"
        if "x-unit" in node:
            kind += f", {node['x-unit']}"
        return kind

    def default_text(self, node, required):
        if required:
            return "Required."
        if "default" in node:
            return f"Default: {json.dumps(node['default'])}."
        return f"Default: {node['x-default']}." if "x-default" in node else "Optional."

    def keys(self, node, path):
        """The list of an object's keys, then whatever stands below them."""
        below = []
        self.out.append(".Bl -tag -width Ds\n")
        for key, unresolved in node["properties"].items():
            member = self.resolve(unresolved)
            self.out.append(f".It Cm {path}{key} Pq {escape(self.type_text(member))}\n")
            self.out.append(paragraph(member["description"]))
            self.out.append(paragraph(self.default_text(member, key in node.get("required", []))))
            below.append((member, path + key))
        self.out.append(".El\n")
        for member, place in below:
            self.below(member, place)

    def section(self, node, title, path):
        self.out.append(f".Ss {title}\n")
        self.out.append(paragraph(node["description"]))
        self.keys(node, path)

    def below(self, node, path):
        if isinstance(node.get("additionalProperties"), dict):
            inner = self.resolve(node["additionalProperties"])
            name = {"uplinks": "UPLINK", "tenants": "TENANT", "ports": "PORT"}[path.split(".")[-1]]
            # What stands below a port is long enough without the way to it.
            self.section(inner, f"{path}.{name}", "PORT." if name == "PORT" else f"{path}.{name}.")
        elif "oneOf" in node:
            for branch in node["oneOf"]:
                inner = self.resolve(branch)
                kind = inner["properties"]["kind"]["const"]
                self.section(inner, f"{path}, kind {kind}", f"{path}.")
        elif "properties" in node:
            self.section(node, path, f"{path}.")
        elif node["type"] == "array":
            items = self.resolve(node["items"])
            if items["type"] == "object":
                self.section(items, f"{path}, each element", f"{path}[].")

    def write(self):
        self.out.append(HEADER)
        self.out.append(paragraph(self.schema["description"]))
        self.out.append(FORMAT)
        self.keys(self.schema, "")
        self.out.append(".Sh EXAMPLES\n")
        for example in self.schema["examples"]:
            text = json.dumps(example, indent=2)
            lines = "\n".join(escape(line) for line in compact(text).split("\n"))
            self.out.append(f".Bd -literal\n{lines}\n.Ed\n")
        self.out.append(".Sh SEE ALSO\n")
        self.out.append(" ,\n".join(f".Xr {name} {section}" for name, section in SEE_ALSO) + "\n")
        return "".join(self.out)


def compact(text):
    """Puts lists of plain values and objects without inner objects on one line, where that fits."""
    def join(match):
        line = re.sub(r"\s*\n\s*", " ", match.group(0))
        line = re.sub(r"([\[{]) ", r"\1", line)
        line = re.sub(r" ([\]}])", r"\1", line)
        return line if len(line) <= 70 else match.group(0)
    text = re.sub(r"\[[^\[\]{}]*\]", join, text)
    return re.sub(r"\{[^{}]*\}", join, text)


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    with open(sys.argv[1], encoding="utf-8") as source:
        schema = json.load(source)
    with open(sys.argv[2], "w", encoding="utf-8") as page:
        page.write(Page(schema).write())


if __name__ == "__main__":
    main()
