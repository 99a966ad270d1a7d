"""Every check, the most valuable first. A new one is a function of (place, tell) and a line here."""

from __future__ import annotations

from benchmarks.gpu import encoding, memory, training
from benchmarks.gpu.running import Check

CHECKS = (
    Check("card", "driver, memory, and what torch says of the card", memory.card, 40),
    Check("two-encoders", "two SAM encoders side by side, each with half of the card", memory.two_encoders, 75),
    Check("resumed", "training twice, and resumed from each saved state", training.resumed, 90),
    Check("waiting", "calls that wait for the GPU while it trains and encodes", training.waiting, 45),
    Check("limits", "training and encoding with less and less memory", memory.limits, 100),
    Check("epoch", "an epoch from the store, over one with all pixels in the card's memory", training.epoch, 75),
    Check("layouts", "steps of training in either memory layout", training.layouts, 45),
    Check("encoders", "CLIP and SAM in each precision: speed, how busy the card is, error", encoding.encoders, 110),
    Check("numbers", "scores of the same detectors on GPU and CPU", encoding.numbers, 60),
    Check("grad-cam", "encoding, then Grad-CAM, in one process", encoding.grad_cam, 40),
    Check("carried", "a state carried from GPU to CPU and back", training.carried, 50),
    Check("at-once", "one, two and four trials at once on one card", memory.trials_at_once, 80),
)
