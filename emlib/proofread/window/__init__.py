"""The window of ``napari_proofread.py``: a run in napari, edited by buttons and keys, all of it through the journal.

What a button or key does is a function of `emlib.proofread.window.commands`, which knows napari's viewer model and no
Qt; the dock widget only calls it. napari and Qt are imported inside functions.
"""
