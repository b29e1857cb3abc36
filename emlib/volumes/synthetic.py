"""The file whose name says that what lies beside it is not real."""

SYNTHETIC_MARK = "SYNTHETIC_PHANTOM_NOT_REAL_DATA.txt"
