"""Numbers with their nouns."""

from __future__ import annotations


def counted(number: int, one: str, many: str | None = None) -> str:
    """Return a number and its noun, singular or plural.

    Parameters
    ----------
    number : int
    one, many : str
        The noun; without the plural an s is added.

    Examples
    --------
    >>> counted(1, "patch", "patches"), counted(2, "patch", "patches"), counted(0, "channel")
    ('1 patch', '2 patches', '0 channels')
    """
    return f"{number} {one if number == 1 else many or one + 's'}"


def listed(names: list[str] | tuple[str, ...], one: str) -> str:
    """Return a noun with names after it: section 00; sections 00, 03.

    Examples
    --------
    >>> listed(["00"], "section"), listed(["00", "03"], "section")
    ('section 00', 'sections 00, 03')
    """
    return f"{one if len(names) == 1 else one + 's'} {', '.join(names)}"
