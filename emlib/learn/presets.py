"""Recipes by name: architecture, patches, augmentation, loss and optimiser that belong together."""
