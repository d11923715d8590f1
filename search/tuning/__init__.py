"""Proposes configurations, trains them, and never loses one; knows nothing of the test set."""
