"""What to look at next: places where neurites are probably wrong, the most useful first."""

from emlib.proofread.suspects.ranking import COLUMNS, KINDS, find_suspects

__all__ = ["COLUMNS", "KINDS", "find_suspects"]
