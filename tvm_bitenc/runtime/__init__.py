"""What it takes to run a compiled network: numpy, and no compiler."""
