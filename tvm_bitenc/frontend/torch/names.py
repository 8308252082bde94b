"""Names of layers: paths of torch modules."""

from __future__ import annotations

import re

from torch.fx import Node

CONVOLUTIONS = ("conv1d", "conv2d", "conv3d", "convolution", "conv_transpose1d", "conv_transpose2d")
PRODUCTS = ("linear", "addmm", "mm", "bmm", "baddbmm", "matmul")
LAYERS = frozenset(CONVOLUTIONS + PRODUCTS)


def base_name(node: Node) -> str:
    """Name of the op that a node calls, without its overload."""
    return op_base_name(getattr(node.target, "__name__", str(node.target)))


def op_base_name(name: str) -> str:
    """``add`` of ``add.Tensor``."""
    return name.split(".")[0]


def layer_name(node: Node) -> str:
    """Path of the module that a node belongs to, e.g. ``features.3``; empty for the outermost."""
    # `torch.compile` puts its own name of the model in front: L['self'].features.3
    return re.sub(r"^L\['\w+'\]\.?", "", _path(node))


def _path(node: Node) -> str:
    stack = (node.meta.get("nn_module_stack") or {}).values()
    # A class with a leading underscore is a part of its layer, not a layer.
    paths = [path for path, kind in stack if not str(kind).split(".")[-1].startswith("_")]
    return str(paths[-1]) if paths else ""


def where_of(node: Node) -> str:
    """Operator and layer of a node, for messages."""
    return f"{base_name(node)} of layer {layer_name(node)!r}"


def reader_name(node: Node, steps: int = 4) -> str:
    """Path of the layer that reads a node's result, be it through a few other nodes."""
    users, name = list(node.users), ""
    for _ in range(steps):
        layers = [user for user in users if base_name(user) in LAYERS]
        if layers:
            name = layer_name(layers[0])
            break
        users = [reader for user in users for reader in user.users]
    return name or layer_name(node)
