"""Let torchvision's CUDA wheel be imported beside a CPU build of torch.

The torchvision wheel of the Python index is built for CUDA. Beside a CPU torch its compiled library does not
load, which torchvision itself tolerates; then it registers fake kernels for ``torchvision::nms`` and
``torchvision::qnms``, which the library would have defined, and ``import torchvision`` fails with "operator
torchvision::nms does not exist". Transformers and vLLM need only torchvision's Python part, so it is enough
to define the two schemas at that moment. Their kernels stay absent: calling ``nms`` still raises.

``bin/setup`` copies this file into site-packages, beside a ``.pth`` file that calls `install` at every start
of the interpreter, and does so only where the import fails. A ``.pth`` file, because vLLM inspects model
classes in subprocesses. Nothing is imported here at start, and where the compiled library does load (the
schemas exist then) the hook does nothing.
"""

import sys
from typing import Any

SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
# The first modules of torchvision that need the schemas; `torchvision/__init__.py` imports them right after
# it has tried to load its compiled library.
NEEDS_SCHEMAS = ("torchvision._autograd_registrations", "torchvision._meta_registrations")

# Definitions live as long as their Library object.
_libraries: list[Any] = []


def define_missing_schemas() -> list[str]:
    """Define the schemas that torch does not know yet.

    Returns:
        The names defined by this call; empty when all existed.
    """
    import torch

    missing = [name for name in SCHEMAS if not hasattr(torch.ops.torchvision, name)]
    if missing:
        library = torch.library.Library("torchvision", "FRAGMENT")
        _libraries.append(library)
        for name in missing:
            library.define(SCHEMAS[name])
    return missing


class SchemaFinder:
    """A finder that finds nothing: it only learns that torchvision is about to need the schemas."""

    @staticmethod
    def find_spec(fullname: str, path: object = None, target: object = None) -> None:
        """Define the schemas before the first module that needs them, then leave the import to the others."""
        if fullname in NEEDS_SCHEMAS:
            define_missing_schemas()


def install() -> None:
    """Put the finder first on ``sys.meta_path``, once."""
    if SchemaFinder not in sys.meta_path:
        sys.meta_path.insert(0, SchemaFinder)
