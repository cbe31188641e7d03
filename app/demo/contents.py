"""What the demo holds: each series with the function that makes its instances."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pydicom.dataset import Dataset

from app.demo.cine import cine
from app.demo.documents import letter, report
from app.demo.identity import (
    CT_HEAD,
    CT_LETTER,
    CT_REPORT,
    MR_ENHANCED,
    MR_T1,
    MR_T2,
    SM_SLIDE,
    US_CINE,
    DemoSeries,
)
from app.demo.slide import LEVELS, slide
from app.demo.volumes import CT_SLICES, MR_SLICES, ct_head, mr_enhanced, mr_t1, mr_t2


@dataclass(frozen=True, slots=True)
class Making:
    """How one series of the demo comes about."""

    series: DemoSeries
    instances: int
    make: Callable[[], Iterator[Dataset]]


CONTENTS = (
    Making(CT_HEAD, CT_SLICES, ct_head),
    Making(CT_REPORT, 1, report),
    Making(CT_LETTER, 1, letter),
    Making(MR_T1, MR_SLICES, mr_t1),
    Making(MR_T2, MR_SLICES, mr_t2),
    Making(MR_ENHANCED, 1, mr_enhanced),
    Making(US_CINE, 1, cine),
    Making(SM_SLIDE, LEVELS, slide),
)
