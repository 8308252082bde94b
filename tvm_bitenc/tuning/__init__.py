"""Autotuning: spaces, search and measurement on TVM's MetaSchedule.

`api.tune` is what users call; it needs the extra `tune`. What it finds is written as
`tvm_bitenc.records`, which `build` reads.
"""
