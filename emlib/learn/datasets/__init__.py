"""Sections with their masks, as training sees them."""
