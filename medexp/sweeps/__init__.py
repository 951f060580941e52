"""Runs as jobs: one by one, or many in stage order, each in a process of its own."""
