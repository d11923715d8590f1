"""Retrains the winners, fixes the threshold, scores the test set once, and exports the model."""
