"""Running and drawing what an accelerator does: programs of a network, their counters, pictures."""
