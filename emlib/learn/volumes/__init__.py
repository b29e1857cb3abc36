"""Boundaries learnt from a labelled volume: targets, patches with neighbouring sections, prediction along axes."""
