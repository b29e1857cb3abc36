"""Annotations that other programs wrote, read into masks and written back: one file per format."""
