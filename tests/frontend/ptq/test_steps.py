"""First, last and gating layers of small graphs."""

from tvm_bitenc.frontend.ptq.steps import Step, first_layers, gates, last_layers

CHAIN = [
    Step(("x",), ("a",), "stem"),
    Step(("a",), ("b",)),
    Step(("b",), ("c",), "body"),
    Step(("c", "b"), ("d",)),
    Step(("d",), ("e",), "head"),
    Step(("e",), ("y",)),
]


def test_first_and_last_look_through_other_ops():
    assert first_layers(CHAIN, ["x"]) == {"stem"}
    assert last_layers(CHAIN, ["y"]) == {"head"}


def test_two_inputs_and_two_outputs_have_two_layers_each():
    steps = [
        Step(("x",), ("a",)),
        Step(("a",), ("b",), "left"),
        Step(("z",), ("c",), "right"),
        Step(("b", "c"), ("d",)),
        Step(("d",), ("y",), "up"),
        Step(("d",), ("w",), "down"),
    ]
    assert first_layers(steps, ["x", "z"]) == {"left", "right"}
    assert last_layers(steps, ["y", "w"]) == {"up", "down"}


def gated(multiplies, pooled=(1, 8, 1, 1)):
    steps = [
        Step(("x",), ("a",), "body"),
        Step(("a",), ("p",)),
        Step(("p",), ("q",), "squeeze"),
        Step(("q",), ("r",), "excite"),
        Step(("a", "r"), ("y",), "", multiplies),
        Step(("y",), ("z",)),
        Step(("z",), ("logits",), "head"),
    ]
    image = (1, 8, 5, 5)
    shapes = dict(x=image, a=image, p=pooled, q=pooled, r=pooled, y=image, z=(1, 8))
    return gates(steps, {**shapes, "logits": (1, 10)})


def test_layers_that_only_scale_an_image_are_gates():
    assert gated(True) == {"squeeze", "excite"}
    assert gated(True, pooled=(1, 8)) == {"squeeze", "excite"}


def test_layers_that_add_to_an_image_or_keep_its_size_are_not():
    assert gated(False) == set()
    assert gated(True, pooled=(1, 8, 5, 1)) == set()
