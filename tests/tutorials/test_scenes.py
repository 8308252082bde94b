"""Scenes: their boxes hold the ink of their digits, and so do their masks."""

import sys
from pathlib import Path

import pytest

pytest.importorskip("sklearn", reason="pip install 'tvm-bitenc[report]'")
import numpy as np

TUTORIALS = Path(__file__).parents[2] / "tutorials"


@pytest.fixture(scope="module")
def scenes():
    sys.path.insert(0, str(TUTORIALS))
    try:
        import scenes

        yield scenes
    finally:
        sys.path.remove(str(TUTORIALS))
        for name in ("scenes", "digits"):
            sys.modules.pop(name, None)


def test_boxes_and_masks_fit_the_ink(scenes):
    made, _ = scenes.load_scenes(train=12, test=2)
    for image, boxes, labels, mask in zip(made.images[:, 0], made.boxes, made.labels, made.masks):
        ink = image > scenes.INK
        assert ((mask != scenes.BACKGROUND) == ink).all() and 1 <= len(boxes) == len(labels) <= 4
        covered = np.zeros(ink.shape, bool)
        for (x0, y0, x1, y1), label in zip(boxes.int().tolist(), labels.tolist()):
            inside = (mask[y0:y1, x0:x1] == label).numpy()
            assert inside[0].any() and inside[-1].any()
            assert inside[:, 0].any() and inside[:, -1].any()
            covered[y0:y1, x0:x1] = True
        assert not (ink.numpy() & ~covered).any()


def test_the_same_seed_gives_the_same_scenes(scenes):
    first, again, other = (scenes.load_scenes(4, 2, seed)[0] for seed in (0, 0, 1))
    assert first.images.equal(again.images) and not first.images.equal(other.images)
    assert first.images.shape == (4, 1, scenes.SIZE, scenes.SIZE) and len(first) == 4
