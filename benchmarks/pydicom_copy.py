"""What a script does that sorts DICOM files into folders: `dcmread` for the UIDs, and a copy.

python pydicom_copy.py SOURCE TARGET
"""

import shutil
import sys
from pathlib import Path

from pydicom import dcmread


def main(source: Path, target: Path) -> None:
    """Copy every file below `source` to study/series/instance below `target`."""
    for path in source.rglob("*.dcm"):
        data_set = dcmread(path)
        folder = target / data_set.StudyInstanceUID / data_set.SeriesInstanceUID
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / f"{data_set.SOPInstanceUID}.dcm")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
