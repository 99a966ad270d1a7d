"""Edited windows of a picture, by their statistics and how these differ from the rest; trained without any generator.

Its fakes are real photographs with one region edited by a classic operation (`data.self_edited`), as for
`self_edited_linear`; here the region's mask is learned, so that the method has maps. Two passes of processing over
whole pictures, real and edited alike, teach it what resizing and compression look like.

The score of an image is the sum of the mean of its top 10 % of windows and of a logistic regression on the statistics
of the whole image. Both are brought to one scale on self-edited validation photographs, and so is their sum.
"""

from __future__ import annotations

from models.configs import WindowsConfig
from models.detector import BuildContext, Detector
from models.needs import PictureNeeds, SelfEdits
from models.registry import register_detector
from models.windows import MIN_SIDE


@register_detector(
    "self_edited_windows",
    config=WindowsConfig(),
    family="no-generator",
    gpu_share=0.0,
    needs_fakes=False,
    self_edits=lambda config: (
        SelfEdits("regions", config.edits, config.most_edits, 0),
        SelfEdits("blobs", config.whole_edits, config.most_whole_edits, config.most_valid_edits),
    ),
    picture_needs=lambda config: PictureNeeds(min_side=MIN_SIDE),
)
def build(config: WindowsConfig, context: BuildContext) -> Detector:
    """Statistics of windows, small network; learns from self-edited photographs, no generator; has maps."""
    from models.window_detector import SelfEditedWindows

    return SelfEditedWindows(config, context)
