"""What was written about the head CT: a structured report (PS3.3 §A.35.3) and an encapsulated PDF (§A.45.1)."""

from collections.abc import Iterator, Sequence

from pydicom.dataset import Dataset
from pydicom.uid import ComprehensiveSRStorage, CTImageStorage, EncapsulatedPDFStorage

from app.demo.codes import code
from app.demo.identity import CT_HEAD, CT_LETTER, CT_REPORT, CT_STUDY, new_instance
from app.demo.phantom import LESION_RADIUS_MM
from app.demo.volumes import ct_slice_of_lesion

FINDINGS = (
    "Rounded hyperdense lesion in the left basal ganglia with a rim of oedema and slight displacement of the "
    "neighbouring ventricle. Calcified pineal gland and choroid plexus. Nothing else: the phantom ends at the neck."
)
IMPRESSION = "Synthetic lesion, put there on purpose. This head belongs to nobody."
LANGUAGE = code("121049", "DCM", "Language of Content Item and Descendants")


def report() -> Iterator[Dataset]:
    """A basic diagnostic imaging report (PS3.16 TID 2000) that points to the slice it speaks of."""
    slice_number = ct_slice_of_lesion()
    instance = new_instance(CT_REPORT, ComprehensiveSRStorage, 1)
    instance.CompletionFlag = "COMPLETE"
    instance.VerificationFlag = "UNVERIFIED"
    instance.PerformedProcedureCodeSequence = []
    instance.ReferencedPerformedProcedureStepSequence = []
    instance.CurrentRequestedProcedureEvidenceSequence = [_evidence(slice_number)]

    instance.ValueType = "CONTAINER"
    instance.ContinuityOfContent = "SEPARATE"
    instance.ConceptNameCodeSequence = [code("18747-6", "LN", "CT Report")]
    instance.ContentTemplateSequence = [_template("2000")]
    instance.ContentSequence = [
        _coded("HAS CONCEPT MOD", LANGUAGE, code("en", "RFC5646", "English")),
        _coded("HAS OBS CONTEXT", code("121005", "DCM", "Observer Type"), code("121007", "DCM", "Device")),
        _device_observer(),
        _section(
            code("121070", "DCM", "Findings"),
            _text(code("121071", "DCM", "Finding"), FINDINGS),
            _millimetres(code("81827009", "SCT", "Diameter"), 2 * LESION_RADIUS_MM),
            _image(slice_number),
        ),
        _section(code("121076", "DCM", "Conclusions"), _text(code("121077", "DCM", "Conclusion"), IMPRESSION)),
    ]
    yield instance


def letter() -> Iterator[Dataset]:
    """The PDF, as an encapsulated document."""
    document = pdf_page(
        "A letter about nobody",
        (
            "This page is a PDF inside a DICOM file, stored by codweb demo.",
            "If you can read it in your viewer, bulk data works.",
            f"Study: {CT_STUDY.description}, accession number {CT_STUDY.accession_number}.",
        ),
    )
    instance = new_instance(CT_LETTER, EncapsulatedPDFStorage, 1)
    instance.ConversionType = "SYN"
    instance.BurnedInAnnotation = "NO"
    instance.DocumentTitle = "A letter about nobody"
    instance.ConceptNameCodeSequence = [code("51969-4", "LN", "Report of analysis")]
    instance.MIMETypeOfEncapsulatedDocument = "application/pdf"
    instance.EncapsulatedDocument = document + bytes(len(document) % 2)
    instance.EncapsulatedDocumentLength = len(document)
    yield instance


def pdf_page(title: str, lines: Sequence[str]) -> bytes:
    """A PDF of one A5 page (ISO 32000-1): a title, lines of text, and a drawing of a head."""
    content = _drawing_commands(title, lines).encode("ascii")
    bodies = (
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 420 595] /Contents 4 0 R"
        b" /Resources << /Font << /F1 5 0 R /F2 6 0 R >> >> >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(content), content),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica-Bold >>",
    )
    page = bytearray(b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n")
    offsets = []
    for number, body in enumerate(bodies, start=1):
        offsets.append(len(page))
        page += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table_offset = len(page)
    page += b"xref\n0 %d\n0000000000 65535 f \n" % (len(bodies) + 1)
    for offset in offsets:
        page += b"%010d 00000 n \n" % offset
    page += b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(bodies) + 1, table_offset)
    return bytes(page)


def _drawing_commands(title: str, lines: Sequence[str]) -> str:
    commands = [f"BT /F2 20 Tf 42 530 Td ({_escaped(title)}) Tj ET"]
    for index, line in enumerate(lines):
        commands.append(f"BT /F1 11 Tf 42 {495 - 18 * index} Td ({_escaped(line)}) Tj ET")
    commands.append("0.90 0.86 0.80 rg 0.25 0.25 0.30 RG 3 w " + _ellipse(210, 230, 118, 148) + " B")
    commands.append("0.78 0.78 0.80 rg 1.5 w " + _ellipse(210, 230, 100, 128) + " B")
    commands.append("0.25 0.25 0.30 rg " + _ellipse(190, 250, 11, 40) + " f " + _ellipse(230, 250, 11, 40) + " f")
    commands.append("0.75 0.20 0.20 rg " + _ellipse(262, 205, 17, 21) + " f")
    commands.append("0.75 0.20 0.20 RG 1 w 282 205 m 350 205 l S")
    commands.append("BT /F1 10 Tf 0.75 0.20 0.20 rg 354 202 Td (lesion) Tj ET")
    return "\n".join(commands)


def _ellipse(x: float, y: float, width: float, height: float) -> str:
    """The path of an ellipse of two half axes as four Bézier curves."""
    k, m = 0.5523 * width, 0.5523 * height
    curves = (
        (x + width, y + m, x + k, y + height, x, y + height),
        (x - k, y + height, x - width, y + m, x - width, y),
        (x - width, y - m, x - k, y - height, x, y - height),
        (x + k, y - height, x + width, y - m, x + width, y),
    )
    return f"{x + width:.1f} {y:.1f} m " + " ".join(
        " ".join(f"{place:.1f}" for place in curve) + " c" for curve in curves
    )


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("(", "\\(").replace(")", "\\)")


def _item(relationship: str, value_type: str, concept: Dataset | None) -> Dataset:
    item = Dataset()
    item.RelationshipType = relationship
    item.ValueType = value_type
    if concept is not None:
        item.ConceptNameCodeSequence = [concept]
    return item


def _template(identifier: str) -> Dataset:
    template = Dataset()
    template.MappingResource = "DCMR"
    template.TemplateIdentifier = identifier
    return template


def _coded(relationship: str, concept: Dataset, value: Dataset) -> Dataset:
    item = _item(relationship, "CODE", concept)
    item.ConceptCodeSequence = [value]
    return item


def _device_observer() -> Dataset:
    item = _item("HAS OBS CONTEXT", "UIDREF", code("121012", "DCM", "Device Observer UID"))
    item.UID = CT_HEAD.instance_uid(0)
    return item


def _text(concept: Dataset, text: str) -> Dataset:
    item = _item("CONTAINS", "TEXT", concept)
    item.TextValue = text
    return item


def _millimetres(concept: Dataset, value: float) -> Dataset:
    measured = Dataset()
    measured.NumericValue = value
    measured.MeasurementUnitsCodeSequence = [code("mm", "UCUM", "millimeter")]
    item = _item("CONTAINS", "NUM", concept)
    item.MeasuredValueSequence = [measured]
    return item


def _section(concept: Dataset, *items: Dataset) -> Dataset:
    section = _item("CONTAINS", "CONTAINER", concept)
    section.ContinuityOfContent = "SEPARATE"
    section.ContentSequence = list(items)
    return section


def _reference(slice_number: int) -> Dataset:
    reference = Dataset()
    reference.ReferencedSOPClassUID = CTImageStorage
    reference.ReferencedSOPInstanceUID = CT_HEAD.instance_uid(slice_number)
    return reference


def _image(slice_number: int) -> Dataset:
    item = _item("CONTAINS", "IMAGE", None)
    item.ReferencedSOPSequence = [_reference(slice_number)]
    return item


def _evidence(slice_number: int) -> Dataset:
    """Which image the report refers to, by its study and series (PS3.3 §C.17.2)."""
    series = Dataset()
    series.SeriesInstanceUID = CT_HEAD.series_uid
    series.ReferencedSOPSequence = [_reference(slice_number)]
    study = Dataset()
    study.StudyInstanceUID = CT_STUDY.study_uid
    study.ReferencedSeriesSequence = [series]
    return study
