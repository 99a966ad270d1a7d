"""Files that list images: CSV, TSV, JSON, JSONL and Parquet, and the forms that projects of the field use, as rows."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.roots import Roots
from data.shards import is_tar
from data.sources._paths import is_there, slashes
from data.sources._tree import SPLIT_NAMES
from data.sources.base import is_aside

SPLITS = {**SPLIT_NAMES, "dev": "valid", "eval": "test", "evaluation": "test"}
SUFFIXES = (".csv", ".tsv", ".jsonl", ".json", ".parquet")
TEXT = ".txt"  # read if it is named: folders hold other files of this kind, too
NEGATIVE = "negative"  # in place of a mask: the image is real (IMDL-BenCo)

_UNPACKS = "a launch unpacks such files into the cache, bytes unchanged"
_NO_MASK = ("none", NEGATIVE)
_TEXT_LABELS = ("0", "1", "real", "fake")
_SHOWN = 10  # names of lists in a message
_LABEL_WORDS = {"real": "real", "original": "real", "youtube": "real", "fake": "fake"}

Row = dict[str, Any]


class BadListError(ValueError):
    """A list that cannot be read; the message says why and what to do.

    Attributes:
        what: the problem.
        remedy: what to do about it.
    """

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what, remedy)
        self.what, self.remedy = what, remedy


@dataclass(frozen=True)
class Listed:
    """The rows of one file.

    Attributes:
        file: the file.
        rows: one per image, or per pair of images.
        form: which form the file has, in words; "": a table.
        guesses: what was guessed, a sentence each.
    """

    file: Path
    rows: list[Row]
    form: str = ""
    guesses: tuple[str, ...] = ()


def named_lists(root: Path, *, max_depth: int | None = None) -> list[Path]:
    """The lists of a folder that are known by their names: `list.*` or `manifest.*`, else `metadata.*` at any depth.

    Args:
        root: the folder.
        max_depth: the levels of folders in it that are looked at; None: all.

    Raises:
        BadListError: there is more than one that may be meant, or one leads out of the folder.
    """
    found = _lists_in(root, (path.name for path in root.iterdir()))
    for stem in ("list", "manifest"):
        if named := [path for path in found if path.stem.lower() == stem]:
            return _checked(root, _one(named))
    deep = []
    for folder, folders, names in os.walk(root):
        depth = len(Path(folder).relative_to(root).parts)
        folders[:] = [name for name in folders if not is_aside(name) and (max_depth is None or depth < max_depth)]
        deep += [path for path in _lists_in(Path(folder), names) if path.stem.lower() == "metadata"]
    return _checked(root, sorted(deep))


def find_lists(root: Path) -> list[Path]:
    """The lists of a folder: `named_lists`, else the only list in it.

    Raises:
        BadListError: there is none, or more than one that may be meant, or one leads out of the folder.
    """
    return named_lists(root) or sole_list(root)


def sole_list(root: Path) -> list[Path]:
    """The only list in a folder. Raises `BadListError`, as `find_lists`."""
    return _checked(root, _one(_lists_in(root, (path.name for path in root.iterdir()))))


def _lists_in(folder: Path, names: Iterable[str]) -> list[Path]:
    """Those of a folder's files that may be lists, sorted; without hidden ones and those of other programs."""
    found = [folder / name for name in sorted(names) if Path(name).suffix.lower() in SUFFIXES and not is_aside(name)]
    return [path for path in found if path.is_file()]


def _checked(root: Path, found: list[Path]) -> list[Path]:
    roots = Roots(root)
    for path in found:
        check_inside(roots, path)
    return found


def check_inside(roots: Roots, file: Path) -> None:
    """Refuse a list that lies, or leads, out of the folders. Raises `BadListError`."""
    if not roots.holds(file):
        what = f"the list {file.name} is outside of the data folder: it leads to {os.path.realpath(file)}"
        raise BadListError(what, "copy it into the data folder")


def _one(found: Sequence[Path]) -> list[Path]:
    if not found:
        remedy = f"name it list.csv, or name the file: --list FILE; these are read: {', '.join(SUFFIXES)}"
        raise BadListError("no list of images in the folder", remedy)
    if len(found) > 1:
        names = ", ".join(path.name for path in found[:5])
        raise BadListError(f"several lists in the folder: {names}", "name those that count: --list A,B")
    return list(found)


def read_list(file: Path, root: Path | None = None) -> Listed:
    """Read a list.

    Args:
        file: the list.
        root: the data folder: which files are in it says where a name with blanks ends; None: as the list's folder.

    Raises:
        BadListError: it cannot be read, or has a form that is not known.
    """
    if file.is_dir():
        raise BadListError(f"{file.name} is a folder", "name the file that lists the images: --list FILE")
    if is_tar(file):
        raise BadListError(f"{file.name} is a tar file, not a list", f"give its folder, without a list: {_UNPACKS}")
    try:
        if file.suffix.lower() == ".parquet":
            return Listed(file, _parquet(file))
        text = file.read_text(encoding="utf-8-sig")
        if file.suffix.lower() == ".json":
            return _json(file, _loaded(text))
    except FileNotFoundError:
        names = [path.name for path in file.parent.iterdir()] if file.parent.is_dir() else []
        there = ", ".join(path.name for path in _lists_in(file.parent, names)[:_SHOWN]) or "none"
        raise BadListError(f"{file.name} is not there", f"name a list of {file.parent}; there are: {there}") from None
    except OSError as error:
        raise BadListError(f"{file.name} cannot be read: {error.strerror or error}", "check its permissions") from error
    except ValueError as error:
        if isinstance(error, BadListError):
            raise
        raise BadListError(f"{file.name} cannot be read: {error}", "save it again, as UTF-8") from error
    if file.suffix.lower() == TEXT:
        folders = (file.parent, root or file.parent)
        return Listed(file, [*_text_rows(file, text, folders)], "TruFor")
    if file.suffix.lower() == ".jsonl":
        return Listed(file, list(_json_lines(file, text)))
    header = text.partition("\n")[0]
    separator = "\t" if file.suffix.lower() == ".tsv" else ","
    if separator not in header and ";" in header:
        separator = ";"
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator, restkey="")
    try:
        rows: list[Row] = list(reader)
    except csv.Error as error:
        raise BadListError(f"{file.name} cannot be read: {error}", "save it again as a table") from error
    if any("" in row and row[""] for row in rows if isinstance(row.get(""), list)):
        raise BadListError(f"{file.name} has rows with more values than columns", "put names with a comma in quotes")
    return Listed(file, rows)


def _loaded(text: str) -> Any:
    """A JSON text's content. Raises `ValueError`, also for half a letter (a lone surrogate), which no file can have."""
    content = json.loads(text)
    if "\\u" in text:
        json.dumps(content, ensure_ascii=False).encode()
    return content


def _json_lines(file: Path, text: str) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = _loaded(line)
        except ValueError as error:
            raise BadListError(f"{file.name}, line {number}: {error}", "give one JSON object per line") from error
        if not isinstance(row, dict):
            raise BadListError(f"{file.name}, line {number} is no object", "give one JSON object per line")
        yield row


def _text_rows(file: Path, text: str, folders: Sequence[Path]) -> Iterator[Row]:
    """The rows of lines `image,mask` or `image mask label`, without a first line of names; None is no mask."""
    from data.images import IMAGE_SUFFIXES  # not at the top: it imports NumPy, which naming corpora need not

    lines = [(number, line.strip()) for number, line in enumerate(text.split("\n"), 1) if line.strip()]

    def separates(mark: str) -> bool:
        """Whether the mark stands in every line, and before it the name of an image."""
        return all(mark in line and line.partition(mark)[0].lower().endswith(IMAGE_SUFFIXES) for _, line in lines)

    mark = next(filter(separates, (",", "\t")), "")
    for number, line in lines:
        fields = [part.strip() for part in line.split(mark)] if mark else line.rsplit(maxsplit=1)
        label = fields.pop() if len(fields) > 1 and fields[-1].lower() in _TEXT_LABELS else ""
        whole = fields[0] if len(fields) == 1 else "" if mark else line
        pairs = [fields] if mark and len(fields) == 2 else []
        if whole:
            words = whole.split(" ")
            pairs = [[" ".join(words[:n]), " ".join(words[n:])] for n in range(1, len(words))]
            pairs = [pair for pair in pairs if all(_is_file_name(part, IMAGE_SUFFIXES) for part in pair)]
            if not pairs and whole.lower().endswith(tuple(IMAGE_SUFFIXES)):
                pairs = [[whole, ""]]
        if len(pairs) > 1:
            pairs = [pair for pair in pairs if all(_is_there(part, folders) for part in pair)]
        if len(pairs) != 1:
            what = f"{file.name}, line {number}: it is not clear where the name of the image ends"
            raise BadListError(what, "give a table with the columns path,mask,label: list.csv")
        path, mask = pairs[0]
        yield {"path": path, "mask": mask} | ({"label": label} if label else {})


def _is_file_name(text: str, suffixes: Iterable[str]) -> bool:
    return text.lower().endswith(tuple(suffixes)) or text.lower() in _NO_MASK


def _is_there(text: str, folders: Sequence[Path]) -> bool:
    return text.lower() in _NO_MASK or any(is_there(folder / slashes(text)) for folder in folders)


def _parquet(file: Path) -> list[Row]:
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    def is_packed(kind: pa.DataType) -> bool:
        binary = pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind)
        return binary or pa.types.is_struct(kind)

    if packed := [column.name for column in pq.read_schema(file) if is_packed(column.type)]:
        remedy = f"give its folder, without a list: {_UNPACKS}"
        raise BadListError(f"{file.name} holds pictures in its column {', '.join(packed)}", remedy)
    frame = pd.read_parquet(file)
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]


def _json(file: Path, content: Any) -> Listed:
    if isinstance(content, list):
        rows, form = _rows_of(content)
        if rows is not None:
            return Listed(file, rows, form)
    if isinstance(content, dict) and content:
        if all(isinstance(part, list) for part in content.values()):
            parts = {name: _rows_of(part) for name, part in content.items()}
            are_splits = all(name.lower() in SPLITS for name in parts)
            joined: list[Row] = []
            for name, (rows, _) in parts.items():
                if rows is None:
                    break
                joined += [{"split" if are_splits else "generator": name} | row for row in rows]
            else:
                forms = {form for _, form in parts.values()}
                by_split = forms.pop() if len(forms) == 1 else "lists by split"
                return Listed(file, joined, by_split if are_splits else "lists by name")
        labels: dict[str, str] = {}
        frames = list(_frames(content, labels))
        if frames:
            said = ", ".join(f"{name} is {label}" for name, label in sorted(labels.items()))
            return Listed(file, frames, "DeepfakeBench", (f"labels were read from names: {said}",))
    raise BadListError(
        f"{file.name} has no form that is known",
        'give [{"path": …, "label": …}, …], [[image, mask], …] (IMDL-BenCo), {name: list}, or that of DeepfakeBench',
    )


def _rows_of(content: Sequence[Any]) -> tuple[list[Row] | None, str]:
    """The rows of a JSON list, and its form; None: the form is not known."""
    if all(isinstance(row, dict) for row in content):
        return [dict(row) for row in content], ""
    if all(isinstance(row, list) and len(row) == 2 and isinstance(row[0], str) for row in content):
        return [{"path": path, "mask": mask} for path, mask in content], "IMDL-BenCo"
    return None, ""


def _frames(content: Mapping[str, Any], labels: dict[str, str]) -> Iterator[Row]:
    """The frames of DeepfakeBench: data set -> label -> split -> (maybe compression ->) video -> frames.

    `labels` gets the label of each name.
    """
    for of_set in content.values():
        for name, of_label in _items(of_set):
            for split, of_split in _items(of_label):
                inside = _items(of_split)
                nested = [pair for _, part in inside if not _is_video(part) for pair in _items(part)]
                for video, facts in [pair for pair in [*inside, *nested] if _is_video(pair[1])]:
                    label = labels.setdefault(name, _label_of(name))
                    masks = facts.get("masks") or [None] * len(facts["frames"])
                    if len(masks) != len(facts["frames"]):
                        what = f"video {video} of {name} has {len(facts['frames'])} frames and {len(masks)} masks"
                        raise BadListError(what, "list one mask per frame, or none")
                    for frame, mask in zip(facts["frames"], masks, strict=True):
                        yield {
                            "path": frame, "label": label, "generator": "" if label == "real" else name, "split": split,
                            "source_id": video, "mask": mask,
                        }  # fmt: skip


def _is_video(facts: Any) -> bool:
    return isinstance(facts, dict) and isinstance(facts.get("frames"), list)


def _label_of(name: str) -> str:
    """The label of a name such as FF-real or WhichFaceIsReal_Fake: the last word that says it; else fake."""
    words = [word for word in re.split(r"[^a-z]+", name.lower()) if word in _LABEL_WORDS]
    return _LABEL_WORDS[words[-1]] if words else "fake"


def _items(content: Any) -> list[tuple[str, Any]]:
    return [(str(name), part) for name, part in content.items()] if isinstance(content, dict) else []
