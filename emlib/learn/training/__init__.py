"""The training loop of every network: settings, device, schedule, averaging, saving, resuming, curves."""
