"""Refinement: segment a run anew with what corrected sections teach."""
