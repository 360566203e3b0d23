"""gradtx beside its peers and beside what the memory allows, in one run: `python -m benchmarks.run`.

`cases.py` says what is timed and on which trees, `peers.py` makes a step of each library, `timing.py` takes the time,
`counts.py` reads what XLA says of a program, `sections.py` puts them together, `report.py` and `charts.py` show the
results, and `run.py` is the command.
"""
