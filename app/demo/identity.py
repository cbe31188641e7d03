"""Who and what the demo shows: its studies and series, their UIDs, and what every instance of a series has in common.

Names say that they are not people. UIDs are derived from names (PS3.5 §B.2: `2.25.` and a UUID as a number), so that
making the demo again makes the same studies, and a datastore can be recognised as the demo by its UIDs alone.
"""

import uuid
from dataclasses import dataclass

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

_NAMESPACE = uuid.UUID("6f1d3a52-6c0e-5b7e-9a53-0c5d0e3f4a11")


def demo_uid(*names: str) -> str:
    """A UID that depends on nothing but `names`."""
    return f"2.25.{uuid.uuid5(_NAMESPACE, '/'.join(names)).int}"


@dataclass(frozen=True, slots=True)
class DemoStudy:
    """A study and the person who does not exist."""

    name: str
    patient_name: str
    patient_id: str
    patient_sex: str
    birth_date: str
    accession_number: str
    date: str
    time: str
    description: str

    @property
    def study_uid(self) -> str:
        return demo_uid("study", self.name)

    @property
    def frame_of_reference_uid(self) -> str:
        return demo_uid("frame of reference", self.name)


@dataclass(frozen=True, slots=True)
class DemoSeries:
    """A series of a demo study."""

    study: DemoStudy
    name: str
    number: int
    modality: str
    description: str
    body_part: str

    @property
    def series_uid(self) -> str:
        return demo_uid("series", self.study.name, self.name)

    def instance_uid(self, instance_number: int) -> str:
        return demo_uid("instance", self.study.name, self.name, str(instance_number))


CT_STUDY = DemoStudy(
    "ct", "Demo^Volume", "DEMO-0001", "O", "19700101", "DEMO-A1", "20260105", "091500", "CT head, synthetic"
)
MR_STUDY = DemoStudy(
    "mr", "Demo^Magnet", "DEMO-0002", "O", "19700102", "DEMO-A2", "20260112", "103000", "MR head, synthetic"
)
CINE_STUDY = DemoStudy(
    "cine", "Demo^Cine", "DEMO-0003", "O", "19700103", "DEMO-A3", "20260119", "141000", "Ultrasound, synthetic"
)
SLIDE_STUDY = DemoStudy(
    "slide", "Demo^Slide", "DEMO-0004", "O", "19700104", "DEMO-A4", "20260126", "160500", "Histology, synthetic"
)

CT_HEAD = DemoSeries(CT_STUDY, "head", 2, "CT", "Head 2.0 mm, soft tissue", "HEAD")
CT_REPORT = DemoSeries(CT_STUDY, "report", 10, "SR", "Report on the head CT", "HEAD")
CT_LETTER = DemoSeries(CT_STUDY, "letter", 11, "DOC", "Letter (PDF)", "HEAD")
MR_T1 = DemoSeries(MR_STUDY, "t1", 2, "MR", "T1 sagittal 3D", "HEAD")
MR_T2 = DemoSeries(MR_STUDY, "t2", 3, "MR", "T2 axial", "HEAD")
MR_ENHANCED = DemoSeries(MR_STUDY, "enhanced", 4, "MR", "T2 axial, one multi-frame object", "HEAD")
US_CINE = DemoSeries(CINE_STUDY, "cine", 1, "US", "Four chamber view, cine", "HEART")
SM_SLIDE = DemoSeries(SLIDE_STUDY, "slide", 1, "SM", "Colon-like tissue, H&E colours", "COLON")


def new_instance(
    series: DemoSeries, sop_class_uid: str, instance_number: int, transfer_syntax_uid: str = ExplicitVRLittleEndian
) -> Dataset:
    """An instance with the patient, study, series, equipment and SOP common modules filled (PS3.3 §C.7, §C.12.1)."""
    study = series.study
    instance = Dataset()
    instance.file_meta = FileMetaDataset()
    instance.file_meta.TransferSyntaxUID = UID(transfer_syntax_uid)
    instance.SpecificCharacterSet = "ISO_IR 192"
    instance.SOPClassUID = sop_class_uid
    instance.SOPInstanceUID = series.instance_uid(instance_number)
    instance.InstanceNumber = instance_number

    instance.PatientName = study.patient_name
    instance.PatientID = study.patient_id
    instance.PatientBirthDate = study.birth_date
    instance.PatientSex = study.patient_sex
    instance.PatientIdentityRemoved = "YES"
    instance.DeidentificationMethod = "Synthetic: made from formulas, no person was ever imaged"

    instance.StudyInstanceUID = study.study_uid
    instance.StudyID = study.name
    instance.StudyDate = study.date
    instance.StudyTime = study.time
    instance.StudyDescription = study.description
    instance.AccessionNumber = study.accession_number
    instance.ReferringPhysicianName = None

    instance.SeriesInstanceUID = series.series_uid
    instance.SeriesNumber = series.number
    instance.SeriesDate = instance.ContentDate = study.date
    instance.SeriesTime = instance.ContentTime = study.time
    instance.SeriesDescription = series.description
    instance.Modality = series.modality
    instance.Manufacturer = "codweb demo"
    instance.ManufacturerModelName = "phantom"
    instance.DeviceSerialNumber = "0"
    instance.SoftwareVersions = "1"
    return instance
