"""Refinement by a small 2D U-Net that learns from corrected sections and from the segmentation it is to better."""
