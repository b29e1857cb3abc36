"""Let torchvision be imported where its compiled part cannot be loaded.

timm imports torchvision and uses nothing of its compiled part. Beside a CPU build of PyTorch, a torchvision that was
built for CUDA cannot load that part, and then fails on import ("operator torchvision::nms does not exist"), since it
describes operators that nothing has declared. Two declarations without code are enough: the import succeeds, and who
calls such an operator is told that it has no implementation.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys

import torch

# those that torchvision describes on import whether or not its compiled part was loaded
SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
_KEPT: list[torch.library.Library] = []  # what is declared goes with the object that declared it


def declare_missing_operators() -> tuple[str, ...]:
    """Declare the operators that torchvision needs for its import and cannot bring; call it before timm is imported.

    Nothing happens where torchvision is absent, imported already, or whole.

    Returns
    -------
    tuple of str
        Names of the operators that this call declared.
    """
    if "torchvision" in sys.modules or _KEPT or _compiled_part_loads():
        return ()
    library = torch.library.Library("torchvision", "FRAGMENT")
    for schema in SCHEMAS.values():
        library.define(schema)
    _KEPT.append(library)
    return tuple(SCHEMAS)


def _compiled_part_loads() -> bool:
    """Whether torchvision's operators can be loaded, which this does, as its import would; True where it is absent."""
    package = importlib.util.find_spec("torchvision")
    if package is None or not package.submodule_search_locations:
        return True
    compiled = importlib.machinery.PathFinder.find_spec("_C", list(package.submodule_search_locations))
    if compiled is None or compiled.origin is None:
        return False
    try:
        torch.ops.load_library(compiled.origin)
    except (ImportError, OSError):
        return False
    return True
