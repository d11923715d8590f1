"""The report's charts: computed from records by `scores`, `hyperparameters` and `course`.

Drawn by `style`; `failures` shows images that the winner gets wrong.
"""
