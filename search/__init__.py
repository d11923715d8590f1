"""Hyperparameter search for medical-image CNNs; start with `python -m search.run --help`."""
