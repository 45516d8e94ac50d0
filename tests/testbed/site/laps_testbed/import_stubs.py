"""Let SGLang be imported beside a CPU build of torch, without Triton.

* torchvision: PyPI has the CUDA build, whose C extension cannot load here; its Python side then
  registers fake kernels for two operators that do not exist.  Declaring those is enough.
* Triton (1 GB installed) is named at import time on the CPU path but never called: decorators and
  type annotations only.  A module that answers every attribute stands in for it.

Nothing heavy is imported before the program itself asks for torchvision or Triton.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import FrameType, ModuleType
from typing import Any

# Functions of torch and transformers that ask whether Triton is there; the answer must stay no.
_PROBES = {"has_triton_package", "_is_package_available", "is_triton_available"}

_kept: list[object] = []  # a torch.library.Library unregisters its operators when collected


def install() -> None:
    """Add the two finders; Triton's only where the real one is missing."""
    sys.meta_path.insert(0, TorchvisionFinder())
    if importlib.util.find_spec("triton") is None:
        sys.meta_path.append(TritonFinder())


class TorchvisionFinder(MetaPathFinder):
    """Declares torchvision's compiled operators the first time torchvision is looked for."""

    def find_spec(
        self, fullname: str, _path: Sequence[str] | None, _target: ModuleType | None = None
    ) -> None:
        if fullname != "torchvision":
            return
        sys.meta_path.remove(self)
        import torch

        if torch.version.cuda is None:
            library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
            for name in ("nms", "qnms"):
                library.define(  # type: ignore[no-untyped-call]
                    f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
                )
            _kept.append(library)


class TritonFinder(MetaPathFinder, Loader):
    """Answers `import triton` and every submodule of it with an `Inert` module."""

    def find_spec(
        self, fullname: str, _path: Sequence[str] | None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.partition(".")[0] != "triton" or _asked_by_probe(sys._getframe(1)):
            return None
        return ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return Inert(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        # The few things that are used, and not only named, while SGLang is imported.
        if module.__name__ == "triton":
            vars(module).update(
                __version__="3.0.0", cdiv=_cdiv, next_power_of_2=_next_power_of_2, Config=_Config
            )
        elif module.__name__ == "triton.language":
            vars(module).update(constexpr=_Constexpr)


class Inert(ModuleType):
    """A module that has every attribute; called as a decorator, it returns the function."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__path__: list[str] = []
        self.__spec__ = ModuleSpec(name, None, is_package=True)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        # Capitalised names are classes: they are subclassed and used in annotations.
        value = type(name, (), {}) if name[:1].isupper() else Inert(f"{self.__name__}.{name}")
        setattr(self, name, value)
        return value

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if len(args) == 1 and callable(args[0]) and not kwargs:
            return args[0]
        return lambda function: function

    def __bool__(self) -> bool:
        return False

    def __mro_entries__(self, bases: tuple[type, ...]) -> tuple[type, ...]:
        return ()


class _Config:
    """`triton.Config`: an autotuning choice, never tried."""

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...


class _Constexpr:
    """`triton.language.constexpr`: a compile-time constant."""

    def __init__(self, value: Any = None) -> None:
        self.value = value


def _cdiv(a: int, b: int) -> int:
    return -(a // -b)


def _next_power_of_2(n: int) -> int:
    return 1 << (n - 1).bit_length() if n > 0 else 1


def _asked_by_probe(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_name in _PROBES:
            return True
        frame = frame.f_back
    return False
