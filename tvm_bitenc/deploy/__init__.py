"""What happens to a compiled model outside the process that compiled it."""
