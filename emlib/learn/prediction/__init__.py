"""A trained network on images and volumes: what ``predict.py`` does."""
