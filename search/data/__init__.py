"""Finds, checks, splits, decodes and alters the images; knows no Keras and no run directory."""
