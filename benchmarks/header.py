"""The header of a synthetic instance, as rich as a scanner's: 156 attributes, 201 with those inside sequences.

What a reader must do depends on what a header holds, so it holds what scanners write: several sequences (some nested),
private blocks with text, numbers, bytes and a sequence, values that change with every slice, and most that do not.
"""

import uuid
from dataclasses import dataclass
from hashlib import sha256
from typing import Literal

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import UID, ExplicitVRLittleEndian

TOP_LEVEL_ELEMENTS = 156
ALL_ELEMENTS = 201
"""Elements of a CT data set without and with those of its sequences, private ones and Pixel Data included."""

_NAMESPACE = uuid.UUID("1c6e7a70-58a5-5d0b-8a53-6a0f5f8f2d90")
_FAMILIES = ("Alpha", "Bravo", "Charlie", "Delta", "Echo", "Foxtrot", "Golf", "Hotel", "Índia", "Juliett", "Kilo")
_SOP_CLASSES = {"CT": "1.2.840.10008.5.1.4.1.1.2", "MR": "1.2.840.10008.5.1.4.1.1.4"}
_STUDY_COMPONENT = "1.2.840.10008.3.1.2.3.1"
_PROCEDURE_STEP = "1.2.840.10008.3.1.2.3.3"


def synthetic_uid(*names: object) -> str:
    """A UID that depends on nothing but `names` (PS3.5 §B.2: `2.25.` and a UUID as a number)."""
    return f"2.25.{uuid.uuid5(_NAMESPACE, '/'.join(map(str, names))).int}"


@dataclass(frozen=True, slots=True)
class SeriesPlan:
    """A series to be made: all its bytes depend on these values alone."""

    seed: int
    profile: str
    study: int
    """Counts the studies of the profile from 0."""
    number: int
    modality: Literal["CT", "MR"]
    instances: int
    size: int
    """Rows and columns."""

    @property
    def study_uid(self) -> str:
        return synthetic_uid(self.seed, self.profile, self.study)

    @property
    def series_uid(self) -> str:
        return synthetic_uid(self.seed, self.profile, self.study, self.number)

    def instance_uid(self, index: int) -> str:
        return synthetic_uid(self.seed, self.profile, self.study, self.number, index)

    @property
    def date(self) -> str:
        return f"{2012 + self.study % 13}{1 + self.study % 12:02d}{1 + self.study * 7 % 28:02d}"


def series_header(plan: SeriesPlan) -> Dataset:
    """The attributes that all instances of a series share."""
    header = Dataset()
    for attributes in (_who(plan), _what(plan), _where(plan), _picture(plan), _performed(plan)):
        _put(header, attributes)
    _put(header, _CT if plan.modality == "CT" else _MR)
    _put(header, _sequences(plan))
    _put_private(header, plan)
    return header


def instance_header(plan: SeriesPlan, index: int) -> Dataset:
    """The attributes that change from slice to slice."""
    tenths = 36_000 * 10 + index
    time = f"{tenths // 36_000:02d}{tenths // 600 % 60:02d}{tenths // 10 % 60:02d}.{tenths % 10}{index % 997:03d}00"
    position = -0.7 * plan.instances / 2 + 0.7 * index
    changing: dict[str, object] = {
        "SOPInstanceUID": plan.instance_uid(index),
        "InstanceNumber": index + 1,
        "AcquisitionNumber": 1 + index // 50,
        "InstanceCreationTime": time,
        "AcquisitionTime": time,
        "ContentTime": time,
        "AcquisitionDateTime": plan.date + time,
        "ImagePositionPatient": [-178.5, -191.25, round(position, 3)],
        "SliceLocation": f"{position:.3f}",
        "WindowCenter": [str(35 + index % 9), "-550"],
        "SourceImageSequence": [_source(plan, index)],
    }
    if plan.modality == "CT":
        changing |= {"XRayTubeCurrent": 160 + index * 29 % 110, "Exposure": 75 + index * 13 % 60}
    else:
        changing |= {"TriggerTime": str(index * 3), "SAR": f"{0.11 + index % 17 / 1000:.3f}"}
    header = Dataset()
    _put(header, changing)
    header.add_new("SmallestImagePixelValue", "US", index % 13)
    header.add_new("LargestImagePixelValue", "US", 2900 + index * 37 % 1100)
    return header


def file_meta(plan: SeriesPlan, index: int) -> FileMetaDataset:
    """The File Meta Information (PS3.10 §7.1) of one instance."""
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID = UID(_SOP_CLASSES[plan.modality])
    meta.MediaStorageSOPInstanceUID = UID(plan.instance_uid(index))
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID(synthetic_uid("implementation"))
    meta.ImplementationVersionName = "CODWEB_BENCH"
    return meta


def _put(header: Dataset, attributes: dict[str, object]) -> None:
    for keyword, value in attributes.items():
        items = isinstance(value, list) and isinstance(value[0], Dataset)
        setattr(header, keyword, Sequence(value) if items else value)  # type: ignore[arg-type]  # a list, as was just seen


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def _reference(sop_class_uid: str, instance_uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class_uid, instance_uid
    return item


def _source(plan: SeriesPlan, index: int) -> Dataset:
    item = _reference(_SOP_CLASSES[plan.modality], synthetic_uid(plan.series_uid, "raw", index))
    item.PurposeOfReferenceCodeSequence = Sequence(
        [_code("121322", "DCM", "Source image for image processing operation")]
    )
    return item


def _who(plan: SeriesPlan) -> dict[str, object]:
    """Patient and study modules; the names are plainly nobody's."""
    return {
        "PatientName": f"{_FAMILIES[plan.study % len(_FAMILIES)]}^{plan.profile.capitalize()}^{plan.study:04d}",
        "PatientID": f"BENCH-{plan.profile}-{plan.study:05d}",
        "IssuerOfPatientID": "BENCHMARK",
        "PatientBirthDate": f"{1931 + plan.study % 70}0704",
        "PatientSex": "FMO"[plan.study % 3],
        "PatientAge": f"{21 + plan.study % 66:03d}Y",
        "PatientSize": "1.71",
        "PatientWeight": "68.5",
        "EthnicGroup": "not recorded",
        "Occupation": "synthetic",
        "PregnancyStatus": 4,
        "PatientComments": "made for a benchmark; nobody",
        "PatientIdentityRemoved": "YES",
        "DeidentificationMethod": "never had one",
        "StudyInstanceUID": plan.study_uid,
        "StudyDate": plan.date,
        "StudyTime": f"{7 + plan.study % 12:02d}1530.000000",
        "StudyID": str(1000 + plan.study),
        "AccessionNumber": f"BN{plan.seed:02d}{plan.study:08d}",
        "StudyDescription": f"{plan.modality} chest and abdomen",
        "ReferringPhysicianName": "Referrer^Nobody^^Dr",
        "NameOfPhysiciansReadingStudy": "Reader^Nobody",
        "AdmittingDiagnosesDescription": "none",
        "RequestingPhysician": "Request^Nobody",
        "RequestingService": "Pulmonology",
    }


def _what(plan: SeriesPlan) -> dict[str, object]:
    """Series, SOP common and frame of reference modules."""
    return {
        "SpecificCharacterSet": "ISO_IR 192",
        "SOPClassUID": _SOP_CLASSES[plan.modality],
        "InstanceCreationDate": plan.date,
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL", "SYNTHETIC"],
        "Modality": plan.modality,
        "SeriesInstanceUID": plan.series_uid,
        "SeriesNumber": plan.number + 1,
        "SeriesDate": plan.date,
        "SeriesTime": f"0815{plan.number % 60:02d}.500000",
        "SeriesDescription": f"axial {plan.number + 1}, 1.0 mm, kernel {30 + plan.number}",
        "ContentDate": plan.date,
        "AcquisitionDate": plan.date,
        "TimezoneOffsetFromUTC": "+0200",
        "FrameOfReferenceUID": synthetic_uid(plan.study_uid, "frame of reference"),
        "PositionReferenceIndicator": "SN",
        "Laterality": "",
        "BodyPartExamined": "CHEST",
        "PatientPosition": "HFS",
        "ProtocolName": f"Chest_routine_{plan.number}",
        "PerformingPhysicianName": "Performer^Nobody",
        "OperatorsName": "Operator^Nobody",
        "ImageComments": "",
        "BurnedInAnnotation": "NO",
        "PresentationLUTShape": "IDENTITY",
    }


def _where(plan: SeriesPlan) -> dict[str, object]:
    """Equipment modules."""
    return {
        "Manufacturer": ("Synthetic Scanners", "Imaginary Imaging")[plan.study % 2],
        "ManufacturerModelName": f"Phantom {plan.modality} 64",
        "InstitutionName": "Hospital of the Benchmarks",
        "InstitutionAddress": "1 Nowhere Street, 00000 Nowhere",
        "InstitutionalDepartmentName": "Radiology",
        "StationName": f"{plan.modality}-ROOM-{plan.study % 3}",
        "DeviceSerialNumber": "000123",
        "SoftwareVersions": ["V10A", "V10A_SP2"],
    }


def _picture(plan: SeriesPlan) -> dict[str, object]:
    """Image plane, image pixel, VOI and modality LUT modules."""
    return {
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": plan.size,
        "Columns": plan.size,
        "BitsAllocated": 16,
        "BitsStored": 12,
        "HighBit": 11,
        "PixelRepresentation": 0,
        "PixelSpacing": ["0.69726563", "0.69726563"],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "SliceThickness": "1.0",
        "SpacingBetweenSlices": "0.7",
        "WindowWidth": ["350", "1500"],
        "WindowCenterWidthExplanation": ["SOFT", "LUNG"],
        "RescaleIntercept": "-1024",
        "RescaleSlope": "1",
        "RescaleType": "HU" if plan.modality == "CT" else "US",
        "LossyImageCompression": "00",
    }


def _performed(plan: SeriesPlan) -> dict[str, object]:
    """What was asked for and what was done."""
    return {
        "PerformedStationAETitle": f"{plan.modality}ROOM{plan.study % 3}",
        "PerformedStationName": f"{plan.modality} room {plan.study % 3}",
        "PerformedLocation": "Basement",
        "PerformedProcedureStepStartDate": plan.date,
        "PerformedProcedureStepStartTime": "081500.000",
        "PerformedProcedureStepEndDate": plan.date,
        "PerformedProcedureStepEndTime": "083000.000",
        "PerformedProcedureStepStatus": "COMPLETED",
        "PerformedProcedureStepID": f"STEP{plan.study}",
        "PerformedProcedureStepDescription": f"{plan.modality} chest, native",
        "PerformedProcedureTypeDescription": "Chest",
        "CommentsOnThePerformedProcedureStep": "without incident",
        "RequestedProcedureID": f"REQ{plan.study}",
        "RequestedProcedureDescription": f"{plan.modality} chest",
        "RequestedContrastAgent": "",
        "ConfidentialityConstraintOnPatientDataDescription": "none",
    }


_CT: dict[str, object] = {
    "KVP": "110",
    "ScanOptions": "HELIX",
    "DataCollectionDiameter": "480",
    "ReconstructionDiameter": "357",
    "DistanceSourceToDetector": "1040.5",
    "DistanceSourceToPatient": "570",
    "GantryDetectorTilt": "0",
    "TableHeight": "143.5",
    "RotationDirection": "CW",
    "ExposureTime": 400,
    "FilterType": "BODY",
    "GeneratorPower": 32,
    "FocalSpots": ["0.9", "1.1"],
    "ConvolutionKernel": ["K31", "3"],
    "RevolutionTime": 0.4,
    "SingleCollimationWidth": 0.625,
    "TotalCollimationWidth": 40.0,
    "TableSpeed": 98.4,
    "TableFeedPerRotation": 39.375,
    "SpiralPitchFactor": 0.984375,
    "CTDIvol": 5.31,
    "EstimatedDoseSaving": 22.5,
    "ExposureModulationType": "ANGULAR",
    "ContrastBolusAgent": "none in a phantom",
    "ContrastBolusRoute": "IV",
    "ContrastBolusVolume": "75",
    "ContrastFlowRate": "3",
    "ContrastBolusIngredientConcentration": "350",
    "CTDIPhantomTypeCodeSequence": [_code("113691", "DCM", "IEC Body Dosimetry Phantom")],
}
_MR: dict[str, object] = {
    "ScanningSequence": ["GR", "IR"],
    "SequenceVariant": ["SP", "MP"],
    "ScanOptions": "FS",
    "MRAcquisitionType": "3D",
    "SequenceName": "*synth3d",
    "AngioFlag": "N",
    "RepetitionTime": "1900",
    "EchoTime": "2.52",
    "InversionTime": "900",
    "NumberOfAverages": "1",
    "ImagingFrequency": "63.68",
    "ImagedNucleus": "1H",
    "EchoNumbers": 1,
    "MagneticFieldStrength": "1.5",
    "NumberOfPhaseEncodingSteps": 255,
    "EchoTrainLength": 1,
    "PercentSampling": "100",
    "PercentPhaseFieldOfView": "93.75",
    "PixelBandwidth": "170",
    "TransmitCoilName": "Body",
    "ReceiveCoilName": "Head_32",
    "AcquisitionMatrix": [0, 256, 240, 0],
    "InPlanePhaseEncodingDirection": "ROW",
    "FlipAngle": "9",
    "VariableFlipAngleFlag": "N",
    "dBdt": "0",
    "AcquisitionDuration": 301.5,
    "HeartRate": 66,
    "NominalInterval": 0,
    "CardiacNumberOfImages": 0,
    "IntervalsAcquired": 0,
}


def _sequences(plan: SeriesPlan) -> dict[str, object]:
    step = Dataset()
    step.RequestedProcedureDescription = step.ScheduledProcedureStepDescription = f"{plan.modality} chest"
    step.ScheduledProcedureStepID, step.RequestedProcedureID = f"SCH{plan.study}", f"REQ{plan.study}"
    step.AccessionNumber, step.StudyInstanceUID = f"BN{plan.seed:02d}{plan.study:08d}", plan.study_uid
    step.ReasonForTheRequestedProcedure = "measurement"
    step.ScheduledProtocolCodeSequence = Sequence([_code("CHEST1", "99BENCH", "Chest, low dose")])
    scouts = [synthetic_uid(plan.study_uid, "scout", number) for number in range(3)]
    return {
        "ReferencedImageSequence": [_reference(_SOP_CLASSES[plan.modality], scout) for scout in scouts],
        "RequestAttributesSequence": [step],
        "ProcedureCodeSequence": [_code("24627-2", "LN", "CT Chest")],
        "RequestedProcedureCodeSequence": [_code("24627-2", "LN", "CT Chest")],
        "PerformedProtocolCodeSequence": [_code("CHEST1", "99BENCH", "Chest, low dose")],
        "AnatomicRegionSequence": [_code("51185008", "SCT", "Thorax")],
        "ReferencedStudySequence": [_reference(_STUDY_COMPONENT, synthetic_uid(plan.study_uid, "component"))],
        "ReferencedPerformedProcedureStepSequence": [
            _reference(_PROCEDURE_STEP, synthetic_uid(plan.study_uid, "step"))
        ],
    }


def _put_private(header: Dataset, plan: SeriesPlan) -> None:
    """Two private blocks, one with a kilobyte of bytes and one with a sequence."""
    block = header.private_block(0x0029, "CODWEB BENCH HEADER", create=True)
    block.add_new(0x08, "CS", "PHANTOM")
    block.add_new(0x09, "LO", plan.date)
    block.add_new(0x10, "OB", _noise(1024, plan.series_uid))
    block.add_new(0x20, "DS", ["1.25", "-2.5", "3.75"])
    block.add_new(0x30, "LT", "a sentence that a service engineer may read one day")
    scan = header.private_block(0x0019, "CODWEB BENCH SCAN", create=True)
    scan.add_new(0x0A, "US", plan.number)
    scan.add_new(0x0B, "DS", "17.5")
    scan.add_new(0x0C, "IS", "42")
    scan.add_new(0x0F, "SH", "quick")
    item = Dataset()
    inside = item.private_block(0x0021, "CODWEB BENCH ITEM", create=True)
    inside.add_new(0x01, "UI", synthetic_uid(plan.series_uid, "item"))
    inside.add_new(0x02, "FD", 0.375)
    scan.add_new(0x20, "SQ", Sequence([item]))


def _noise(length: int, name: str) -> bytes:
    return b"".join(sha256(f"{name}/{part}".encode()).digest() for part in range(length // 32))
