"""A network as one function: tensors at planned places, kernels called in order, plain pointers."""
