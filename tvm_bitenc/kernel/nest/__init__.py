"""The loops of convolution kernels, and what they prepare."""
