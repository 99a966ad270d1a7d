"""What a page of the documentation tells its reader to do: files to write and commands to give, in their order."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OF_THE_PROJECT = ("python", "make", "mlflow", "ray", "clusters/", "benchmarks/", "mkdocs", "docker", "sbatch")
OF_OTHERS = ("git", "cd", "source", "eval", "aws", "mv", "chmod", "gcloud", "kubectl", "export")
_INLINE = re.compile(r"(?<!`)`((?:python (?:launch\.py|-m)|make|mlflow|ray|clusters/[\w]+\.sh)(?: [^`\n]*)?)`(?!`)")
_BETWEEN = re.compile(r"(?:&&|;|\s\|\s)(?=(?:[^']*'[^']*')*[^']*$)")  # two commands, outside of quotes


@dataclass(frozen=True)
class File:
    """A file to write: its path in the checkout, and its text."""

    path: str
    text: str


@dataclass(frozen=True)
class Command:
    """One command, without the comment behind it."""

    text: str

    @property
    def words(self) -> list[str]:
        """As a shell splits them, without variables in front."""
        words = shlex.split(self.text)
        while words and re.fullmatch(r"\w+=.*", words[0]):
            words.pop(0)
        return words


def steps(page: str) -> list[File | Command]:
    """Every file and every command of a page that a reader writes or gives."""
    found: list[File | Command] = []
    lines, before, number = page.splitlines(), "", 0
    while number < len(lines):
        line = lines[number]
        number += 1
        if fence := re.match(r"```(\w*)", line):
            end = lines.index("```", number)
            named = re.search(r"`([\w./-]+)`:$", before)
            if fence[1] == "python" and named:
                found.append(File(named[1], "\n".join(lines[number:end]) + "\n"))
            number = end + 1
        elif line.startswith("    ") and not line.startswith("     "):
            while line.endswith("\\"):
                line = f"{line[:-1]} {lines[number].strip()}"
                number += 1
            found += _commands(line)
        before = line.strip() or before
    return found


def inline(page: str) -> list[Command]:
    """The commands in the text and in the tables of a page; not those with a part left out (…)."""
    return [command for text in _INLINE.findall(page) if "…" not in text for command in _commands(text)]


def _commands(line: str) -> list[Command]:
    """The commands of one line; none if its first word is no program."""
    words = re.split(r"\s+#\s|\s{2,}#", line.strip())[0]
    parts = [part.strip() for part in _BETWEEN.split(words)]
    found = [Command(part) for part in parts if part]
    programs = (*OF_THE_PROJECT, *OF_OTHERS)
    first = found[0].text.split() if found else [""]
    while first and re.fullmatch(r"\w+=\S*", first[0]):
        first.pop(0)
    if not first or not first[0].removeprefix(".venv/bin/").startswith(programs):
        return []
    return found
