"""Tells people what a run does and found: terminal, plots, Markdown, HTML; reads records only."""
