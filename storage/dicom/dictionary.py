"""The tables of PS3.6 as pydicom keeps them, without the rest of pydicom.

To import pydicom takes as long as describing two hundred files, and each process that describes files pays it. Its
dictionary is a module of its own and needs nothing of the package, whose `__init__` is all that costs.
"""

import sys
from functools import cache
from importlib.machinery import PathFinder
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import Any, Final


def _alone(name: str) -> ModuleType:
    """A module of pydicom that imports nothing of it; the one that is loaded already, if pydicom is."""
    loaded = sys.modules.get(f"pydicom.{name}")
    if loaded is not None:
        return loaded
    package = find_spec("pydicom")
    assert package is not None  # a dependency
    spec = PathFinder.find_spec(f"pydicom.{name}", package.submodule_search_locations)
    assert spec is not None  # a test of every release: the dictionary stands where it stood
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


STANDARD_ENTRIES: Final[dict[int, Any]] = _alone("_dicom_dict").DicomDictionary
"""Tag → VR, VM, name, retired, keyword; without the repeating groups. Any: text, in five places."""


def tag_of_keyword(keyword: str) -> int | None:
    """The tag that PS3.6 gives a keyword; None for one that it does not know."""
    return _tags_of_keywords().get(keyword)


@cache
def _tags_of_keywords() -> dict[str, int]:
    return {entry[4]: tag for tag, entry in STANDARD_ENTRIES.items()}
