"""Which attributes belong to the patient, study, series and instance level.

Three tables per level, all as tags: what a search always returns, Orthanc's main DICOM tags (the `main` metadata mode),
and together what the derived rows keep, which is also what `includefield` can ask for without opening a series.
Sources: PS3.18 §10.6.3.3 (return keys), the Orthanc Book "Main DICOM tags" with the extras of 1.12.5, and what the
viewers we know read.
"""

from storage.catalogue.query import Level

PATIENT_TAGS = frozenset(
    {
        0x00100010,  # PatientName
        0x00100020,  # PatientID
        0x00100021,  # IssuerOfPatientID
        0x00100030,  # PatientBirthDate
        0x00100032,  # PatientBirthTime
        0x00100040,  # PatientSex
        0x00101000,  # OtherPatientIDs
        0x00101001,  # OtherPatientNames
        0x00102160,  # EthnicGroup
        0x00104000,  # PatientComments
    }
)

STUDY_TAGS = frozenset(
    {
        0x00080020,  # StudyDate
        0x00080030,  # StudyTime
        0x00080050,  # AccessionNumber
        0x00080051,  # IssuerOfAccessionNumberSequence
        0x00080080,  # InstitutionName
        0x00080090,  # ReferringPhysicianName
        0x00080201,  # TimezoneOffsetFromUTC
        0x00081030,  # StudyDescription
        0x00081032,  # ProcedureCodeSequence
        0x00081048,  # PhysiciansOfRecord
        0x00081060,  # NameOfPhysiciansReadingStudy
        0x00081080,  # AdmittingDiagnosesDescription
        0x00101010,  # PatientAge
        0x00101020,  # PatientSize
        0x00101030,  # PatientWeight
        0x00102180,  # Occupation
        0x001021B0,  # AdditionalPatientHistory
        0x0020000D,  # StudyInstanceUID
        0x00200010,  # StudyID
        0x00321032,  # RequestingPhysician
        0x00321060,  # RequestedProcedureDescription
    }
)

SERIES_TAGS = frozenset(
    {
        0x00080021,  # SeriesDate
        0x00080031,  # SeriesTime
        0x00080060,  # Modality
        0x00080070,  # Manufacturer
        0x00081010,  # StationName
        0x0008103E,  # SeriesDescription
        0x00081040,  # InstitutionalDepartmentName
        0x00081050,  # PerformingPhysicianName
        0x00081070,  # OperatorsName
        0x00081090,  # ManufacturerModelName
        0x00180010,  # ContrastBolusAgent
        0x00180015,  # BodyPartExamined
        0x00180024,  # SequenceName
        0x00181000,  # DeviceSerialNumber
        0x00181030,  # ProtocolName
        0x00181090,  # CardiacNumberOfImages
        0x00181400,  # AcquisitionDeviceProcessingDescription
        0x00185100,  # PatientPosition
        0x0020000E,  # SeriesInstanceUID
        0x00200011,  # SeriesNumber
        0x00200037,  # ImageOrientationPatient
        0x00200052,  # FrameOfReferenceUID
        0x00200060,  # Laterality
        0x00200105,  # NumberOfTemporalPositions
        0x00201002,  # ImagesInAcquisition
        0x00400244,  # PerformedProcedureStepStartDate
        0x00400245,  # PerformedProcedureStepStartTime
        0x00400254,  # PerformedProcedureStepDescription
        0x00400275,  # RequestAttributesSequence
        0x00540081,  # NumberOfSlices
        0x00540101,  # NumberOfTimeSlices
        0x00541000,  # SeriesType
    }
)

INSTANCE_TAGS = frozenset(
    {
        0x00080008,  # ImageType
        0x00080012,  # InstanceCreationDate
        0x00080013,  # InstanceCreationTime
        0x00080016,  # SOPClassUID
        0x00080018,  # SOPInstanceUID
        0x00080022,  # AcquisitionDate
        0x00080023,  # ContentDate
        0x00080032,  # AcquisitionTime
        0x00080033,  # ContentTime
        0x00200012,  # AcquisitionNumber
        0x00200013,  # InstanceNumber
        0x00200032,  # ImagePositionPatient
        0x00200037,  # ImageOrientationPatient
        0x00200100,  # TemporalPositionIdentifier
        0x00201041,  # SliceLocation
        0x00204000,  # ImageComments
        0x00280002,  # SamplesPerPixel
        0x00280004,  # PhotometricInterpretation
        0x00280008,  # NumberOfFrames
        0x00280010,  # Rows
        0x00280011,  # Columns
        0x00280030,  # PixelSpacing
        0x00280100,  # BitsAllocated
        0x00280101,  # BitsStored
        0x00281050,  # WindowCenter
        0x00281051,  # WindowWidth
        0x00420010,  # DocumentTitle
        0x00420012,  # MIMETypeOfEncapsulatedDocument
        0x00480006,  # TotalPixelMatrixColumns
        0x00480007,  # TotalPixelMatrixRows
        0x00541330,  # ImageIndex
    }
)

KEPT_TAGS = PATIENT_TAGS | STUDY_TAGS | SERIES_TAGS | INSTANCE_TAGS
"""All attributes that derived rows hold, so the only ones to be decoded when a series is looked over."""

# What a search returns unasked. R = present even without a value; the others only when the data has them.
STUDY_RETURN_REQUIRED = (
    0x00080020, 0x00080030, 0x00080050, 0x00080090, 0x00100010, 0x00100020, 0x00100030, 0x00100040, 0x0020000D, 0x00200010,
)  # fmt: skip
STUDY_RETURN_KNOWN = (0x00080201, 0x00081030)
SERIES_RETURN_REQUIRED = (0x00080060, 0x0020000E, 0x00200011)
SERIES_RETURN_KNOWN = (0x00080021, 0x00080031, 0x00080201, 0x0008103E, 0x0020000D, 0x00400244, 0x00400245, 0x00400275)
INSTANCE_RETURN_REQUIRED = (0x00080016, 0x00080018, 0x00200013)
INSTANCE_RETURN_KNOWN = (0x00080060, 0x00080201, 0x0020000D, 0x0020000E, 0x00280008, 0x00280010, 0x00280011, 0x00280100)

# Computed by this server: never taken from an instance.
SPECIFIC_CHARACTER_SET = 0x00080005
INSTANCE_AVAILABILITY = 0x00080056
MODALITIES_IN_STUDY = 0x00080061
SOP_CLASSES_IN_STUDY = 0x00080062
RETRIEVE_URL = 0x00081190
AVAILABLE_TRANSFER_SYNTAX_UID = 0x00083002
NUMBER_OF_STUDY_RELATED_SERIES = 0x00201206
NUMBER_OF_STUDY_RELATED_INSTANCES = 0x00201208
NUMBER_OF_SERIES_RELATED_INSTANCES = 0x00201209

# Orthanc's main DICOM tags: what the `main` metadata mode answers, level by level.
ORTHANC_PATIENT_TAGS = (0x00100010, 0x00100020, 0x00100030, 0x00100040, 0x00101000)
ORTHANC_STUDY_TAGS = (
    0x00080020, 0x00080030, 0x00080050, 0x00080080, 0x00080090, 0x00080201, 0x00081030,
    0x0020000D, 0x00200010, 0x00321032, 0x00321060,
)  # fmt: skip
ORTHANC_SERIES_TAGS = (
    0x00080021, 0x00080031, 0x00080060, 0x00080070, 0x00080201, 0x00081010, 0x0008103E, 0x00081070, 0x00180010, 0x00180015,
    0x00180024, 0x00181030, 0x00181090, 0x00181400, 0x0020000E, 0x00200011, 0x00200037, 0x00200105, 0x00201002,
    0x00400244, 0x00400245, 0x00400254, 0x00400275, 0x00540081, 0x00540101, 0x00541000,
)  # fmt: skip
ORTHANC_INSTANCE_TAGS = (
    0x00080012, 0x00080013, 0x00080018, 0x00200012, 0x00200013, 0x00200032, 0x00200037, 0x00200100, 0x00204000,
    0x00280008, 0x00541330,
)  # fmt: skip


def level_of(tag: int) -> Level | None:
    """The level at which a kept attribute is searched; patient attributes count to the study. None: not kept."""
    if tag in PATIENT_TAGS or tag in STUDY_TAGS:
        return Level.STUDY
    if tag in SERIES_TAGS:
        return Level.SERIES
    return Level.INSTANCE if tag in INSTANCE_TAGS else None
