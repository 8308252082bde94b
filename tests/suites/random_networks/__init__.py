"""Random networks, compiled and compared bit for bit with the framework that they came from.

python -m tests.suites.random_networks --count 1000 --seed 7 --kind torch
"""
