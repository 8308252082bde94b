"""Autotuning: spaces, search and measurement on TVM's MetaSchedule, and the records of it.

`api.tune` is what users call. `workload.py` and `records.py` need nothing but TVM: `build` reads
records through them. All else needs the extra `tune`.
"""
