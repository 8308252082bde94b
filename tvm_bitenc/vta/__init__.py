"""The accelerator: instruction set, compiler and simulators."""
