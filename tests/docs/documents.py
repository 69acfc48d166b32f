"""What the documents tell people to type."""

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "deploy" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"^ {4}.*$", re.MULTILINE)
SPAN = re.compile(r"(?<!`)`([^`]+)`(?!`)")


def blocks(text: str) -> list[str]:
    """The shell blocks of a Markdown text, fenced ones and then indented ones."""
    fenced = [body for language, body in FENCE.findall(text) if language in ("", "sh", "bash")]
    return [*fenced, "\n".join(INDENTED.findall(FENCE.sub("", text)))]


def commands(text: str) -> list[list[str]]:
    """The arguments of every ``densemask`` in the blocks."""
    found = []
    for block in blocks(text):
        for line in block.replace("\\\n", " ").splitlines():
            if re.match(r"\s*(\$ )?densemask ", line):
                found.append(shlex.split(line.strip().removeprefix("$ "), comments=True)[1:])
    return found


def spans(text: str) -> list[list[str]]:
    """The arguments of every ``densemask`` within a line of prose."""
    prose = INDENTED.sub("", FENCE.sub("", text))
    written = [" ".join(span.split()) for span in SPAN.findall(prose)]
    return [shlex.split(span)[1:] for span in written if span.startswith("densemask ")]
