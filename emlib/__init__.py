"""Raw electron microscopy in, a measured connectome out."""

__version__ = "0.1.0"
