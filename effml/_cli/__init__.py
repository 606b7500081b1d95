"""What the ``effml`` command does, one module per phase.

- ``errors``: how a command fails: one sentence and an exit code
- ``table``: a CSV file to typed columns and labels, with a report of what was inferred
- ``parts``: the held-out part, and the cross-validation on the rest
- ``job``: search under a budget, measure the front, prove the C equal
- ``output``: files that appear whole or not at all
- ``show``: what is printed
"""
