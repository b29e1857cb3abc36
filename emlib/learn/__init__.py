"""Networks: data sets, augmentation, losses, models, the training loop, inference. Needs torch."""
