"""Controls: what must be at chance, and what a method should be above. None of it is a result of a method."""

from __future__ import annotations

from collections.abc import Iterator

from analysis.controls import has_controls, null_cells, null_sentences
from analysis.page import Block, Bullets, Fold, Text
from analysis.parts import Report, register_part
from analysis.tables import PHOTOGRAPHS_ALONE
from grid.controls import CONTROL, REFERENCE
from grid.plan import FINISHED


@register_part("controls", title="Controls", position=45)
def controls(report: Report) -> Iterator[Block]:
    """Null controls with the number of values off chance; references, and every cell beside the best of them."""
    whole = report.whole
    if not has_controls(whole):
        return
    extra = whole.of_kinds(CONTROL, REFERENCE)
    unfinished = int((extra.runs()["state"] != FINISHED).sum())
    if unfinished:
        text = f"{unfinished} trials of controls and references are not finished; this runs them:"
        yield Text(text, strong=True, command=extra.missing_command())
    cells = null_cells(whole)
    if len(cells):
        yield Text(
            "Null controls: detectors of questions without an answer. Labels of training, validation and test images "
            "follow from the seed and the photograph, so .5 is expected of accuracy and of AUROC. These values are no "
            "results of detection."
        )
        yield Bullets([Text(sentence) for sentence in null_sentences(cells)])
        caption = "Null controls, every cell: in brackets of low and high the 99 % interval over source photographs"
        yield Fold("Null controls, every cell", [report.folder.table("controls", cells, caption=caption)])
    beside = report.beside
    rows = beside.rows()
    if len(rows):
        yield Text(
            "References: rows without a trained encoder, not expected at chance. random_encoder: a linear classifier "
            "on a network with random weights; mean_brightness: on one number per picture; headers_only: a decision "
            "tree on what file headers and file sizes say, without a pixel; mask_area: the share of the picture that "
            "is edited, where a real image counts with the area of the fake of the same photograph. A method should be "
            "above the best of them in every cell (paired by photograph, 95 % interval)."
        )
        yield from (Text(note) for note in beside.notes)
        below, without = beside.warnings(report.generators), beside.without()
        yield (
            Bullets([Text(sentence) for sentence in [*below, *without]])
            if below or without
            else Text("Every method is above the best reference in every cell.")
        )
        blocks: list[Block] = [
            report.folder.table(
                "references", rows, caption=f"References, every cell; low and high are {PHOTOGRAPHS_ALONE}"
            ),
            report.folder.table(
                "beside-references", beside.cells, caption="Every cell of every method, and the best reference of it"
            ),
        ]
        yield Fold("References, every cell", blocks)
