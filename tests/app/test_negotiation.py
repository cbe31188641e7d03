"""What is sent for what clients accept: PS3.18 §8.7, and the literal headers of the viewers we know."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.accept import MAX_CHARS, MAX_RANGES, Accept, MediaRange, parse_accept, parse_ranges
from app.errors import NotAcceptable, RequestError
from app.negotiation import (
    FrameForm,
    InstanceForm,
    StoredPixels,
    choose_bulkdata,
    choose_frames,
    choose_instances,
    choose_metadata,
    choose_search,
    media_type_of,
)
from storage.errors import CorruptSeries

ELE = "1.2.840.10008.1.2.1"
IMPLICIT = "1.2.840.10008.1.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
BIG_ENDIAN = "1.2.840.10008.1.2.2"
JPEG = "1.2.840.10008.1.2.4.50"
JPEG_LOSSLESS = "1.2.840.10008.1.2.4.70"
JLS = "1.2.840.10008.1.2.4.80"
J2K = "1.2.840.10008.1.2.4.90"
HTJ2K = "1.2.840.10008.1.2.4.201"
RLE = "1.2.840.10008.1.2.5"

NATIVE_PIXELS = [
    StoredPixels(ELE, is_native=True),
    StoredPixels(IMPLICIT, is_native=True),
    StoredPixels(DEFLATED, is_native=True),
    StoredPixels(BIG_ENDIAN, is_native=True, is_big_endian=True),
]
COMPRESSED_PIXELS = [StoredPixels(uid, is_native=False) for uid in (JPEG, JPEG_LOSSLESS, JLS, J2K, HTJ2K, RLE)]

OHIF_UNQUOTED = "multipart/related; type=application/octet-stream; transfer-syntax=*"
OHIF_QUOTED = 'multipart/related; type="application/octet-stream"; transfer-syntax="*"'
DICOMWEB_CLIENT_ANY = 'multipart/related; type="*/*"'
MICROSCOPY = (
    'multipart/related; type="image/jls"; transfer-syntax=1.2.840.10008.1.2.4.80, '
    'multipart/related; type="image/jls"; transfer-syntax=1.2.840.10008.1.2.4.81, '
    'multipart/related; type="image/jp2"; transfer-syntax=1.2.840.10008.1.2.4.90, '
    'multipart/related; type="image/jp2"; transfer-syntax=1.2.840.10008.1.2.4.91, '
    'multipart/related; type="image/jpx"; transfer-syntax=1.2.840.10008.1.2.4.92, '
    'multipart/related; type="image/jpx"; transfer-syntax=1.2.840.10008.1.2.4.93, '
    'multipart/related; type="application/octet-stream"; transfer-syntax=*, '
    'multipart/related; type="image/jpeg"; transfer-syntax=1.2.840.10008.1.2.4.50'
)
NAVIGATION = (
    "text/html,application/xhtml+xml,application/xml;q=0.9,image/jxl,image/avif,image/webp,image/apng,*/*;q=0.8,"
    "application/signed-exchange;v=b3;q=0.7"
)
OLD_OHIF_METADATA = (
    "application/dicom+json, multipart/related; type=application/octet-stream; transfer-syntax=*; transfer-syntax=*"
)


def accept(*headers: str, query: tuple[str, ...] = ()) -> Accept:
    return parse_accept(headers, query)


def frames(header: str | None, stored: StoredPixels, count: int = 1, query: tuple[str, ...] = ()) -> FrameForm:
    return choose_frames(parse_accept([] if header is None else [header], query), stored, count)


# Reading Accept


@pytest.mark.parametrize(
    "header",
    [
        "multipart/related; type=application/octet-stream; transfer-syntax=*",
        'multipart/related; type="application/octet-stream"; transfer-syntax="*"',
        "multipart/related;type=application/octet-stream;transfer-syntax=*",
        'Multipart/Related ;  TYPE = "Application/Octet-Stream" ; Transfer-Syntax = *',
        "multipart/related; transfer-syntax=*; type=application/octet-stream",
        "multipart/related; type=application/octet-stream; transfer-syntax=*; transfer-syntax=*",
        "multipart/related; type=application/octet-stream; transfer-syntax=*; boundary=**",
        'multipart/related; type="application/octet-stream; transfer-syntax=*"',
        " , ,multipart/related; type=application/octet-stream;; transfer-syntax=*; ,",
    ],
)
def test_spelling_of_parameters_is_free(header):
    (asked,) = parse_ranges(header)

    assert (asked.type, asked.part_type, asked.transfer_syntax) == (
        "multipart/related",
        "application/octet-stream",
        "*",
    )


@pytest.mark.parametrize(
    ("header", "weights"),
    [
        ("text/html, image/gif, */*; q=.2", [1, 1, 0.2]),  # Orthanc bug 216
        ("a/b;q=0.5,c/d;q=1.", [0.5, 1]),
        ('a/b;q="0.25"', [0.25]),
        ("a/b;Q=0", [0]),
        ("a/b;q=7", [1]),
        ("a/b;q=0.1;q=0.9", [0.1]),
    ],
)
def test_weights_are_read_in_every_spelling(header, weights):
    assert [asked.q for asked in parse_ranges(header)] == weights


@pytest.mark.parametrize(
    "member",
    ["nonsense", "a/b;q=x", "a/b;q=-1", "a/b;q=nan", "*/json", "a/b/c", 'a/b;c="open', "é/b", "a b c", "/", ";q=1"],
)
def test_invalid_members_are_ignored(member):
    """PS3.18 §8.7.5: values that are not valid are ignored, and are no error."""
    assert [asked.type for asked in parse_ranges(f"application/json, {member}")] == ["application/json"]


def test_a_comma_inside_quotes_is_no_separator():
    (asked,) = parse_ranges(r'application/json; note="a, b; c=\"d\""')

    assert asked.parameter("note") == 'a, b; c="d"'


def test_a_star_alone_means_everything():
    """dcm4che's wadors sends `?accept=*`."""
    assert parse_ranges("*") == (MediaRange("*/*"),)


def test_several_header_lines_are_one_list():
    assert [asked.type for asked in accept("a/b", "c/d").header] == ["a/b", "c/d"]


@pytest.mark.parametrize("header", ["", "  ", "nonsense", ",,"])
def test_a_list_that_says_nothing_is_like_an_absent_one(header):
    assert accept(header).is_absent
    assert choose_metadata(accept(header)) == "application/dicom+json"


@given(st.text(max_size=200))
def test_no_text_breaks_the_parser(text):
    for asked in parse_ranges(text):
        assert 0 <= asked.q <= 1
        assert asked.type.count("/") == 1


@given(st.text(alphabet='a/*;,="\\ q.0+', max_size=100))
def test_no_punctuation_breaks_the_parser(text):
    for asked in parse_ranges(text):
        assert 0 <= asked.q <= 1


def test_an_endless_accept_is_refused():
    with pytest.raises(RequestError):
        accept("a/b;c=" + "d" * MAX_CHARS)
    with pytest.raises(RequestError):
        accept("a/b," * MAX_RANGES + "c/d")


# Metadata and searches


@pytest.mark.parametrize("choose", [choose_metadata, choose_search])
@pytest.mark.parametrize(
    ("header", "media_type"),
    [
        (None, "application/dicom+json"),
        ("*/*", "application/dicom+json"),
        ("application/*", "application/dicom+json"),
        ("application/dicom+json", "application/dicom+json"),
        ("application/json", "application/json"),
        ("application/dicom+json, application/json", "application/dicom+json"),  # dicomweb-client
        ("application/json, application/dicom+json", "application/json"),
        ("application/json;q=0.5, application/dicom+json;q=0.6", "application/dicom+json"),
        ('multipart/related; type="application/dicom+xml", application/dicom+json;q=0.1', "application/dicom+json"),
        ("application/dicom+json;q=0, */*", "application/json"),
        ("APPLICATION/DICOM+JSON; charset=utf-8", "application/dicom+json"),
        (OLD_OHIF_METADATA, "application/dicom+json"),
        (NAVIGATION, "application/dicom+json"),
    ],
)
def test_json_is_sent_under_the_name_by_which_it_was_asked(choose, header, media_type):
    assert choose(parse_accept([] if header is None else [header])) == media_type


@pytest.mark.parametrize("choose", [choose_metadata, choose_search])
@pytest.mark.parametrize(
    "header",
    [
        "application/nope",
        "application/dicom+xml",
        'multipart/related; type="application/dicom+xml"',
        "image/jpeg",
        "*/*;q=0",
        "application/dicom+json;q=0, application/json;q=0.0",
    ],
)
def test_json_alone_is_available_so_the_rest_is_406_and_says_so(choose, header):
    with pytest.raises(NotAcceptable) as caught:
        choose(accept(header))

    assert caught.value.available == ("application/dicom+json", "application/json")


@pytest.mark.parametrize(
    ("header", "query", "media_type"),
    [
        ("image/jpeg", "application/json", "application/json"),
        ("application/json", "application/dicom+json", "application/dicom+json"),
        ("image/jpeg", "application/dicom json", "application/dicom+json"),  # a raw + that arrived as a blank
        ("image/jpeg", "*", "application/dicom+json"),
        ("image/jpeg", "*/*", "application/dicom+json"),
        ("*/*", "image/png", "application/dicom+json"),  # §8.7.8.1: nothing of the query fits, so the header is asked
        ("application/json", "nonsense", "application/json"),
    ],
)
def test_the_accept_parameter_beats_the_header(header, query, media_type):
    assert choose_metadata(accept(header, query=(query,))) == media_type


def test_the_accept_parameter_alone_can_be_406():
    with pytest.raises(NotAcceptable):
        choose_metadata(accept(query=("image/png",)))


# Frames


@pytest.mark.parametrize("header", [OHIF_UNQUOTED, OHIF_QUOTED])
@pytest.mark.parametrize("stored", COMPRESSED_PIXELS)
def test_ohif_gets_stored_frames_as_octet_stream_with_their_syntax(header, stored):
    form = frames(header, stored)

    assert form == FrameForm(True, "application/octet-stream", stored.transfer_syntax_uid)
    assert form.part_content_type == f"application/octet-stream; transfer-syntax={stored.transfer_syntax_uid}"


@pytest.mark.parametrize("header", [OHIF_UNQUOTED, OHIF_QUOTED, DICOMWEB_CLIENT_ANY, "*/*", None, "multipart/related"])
@pytest.mark.parametrize("stored", NATIVE_PIXELS)
def test_native_frames_leave_as_explicit_vr_little_endian(header, stored):
    """PS3.18 §8.7.3: Implicit VR Little Endian and Explicit VR Big Endian are not used on the web."""
    assert frames(header, stored) == FrameForm(True, "application/octet-stream", ELE)


@pytest.mark.parametrize(
    "header", [DICOMWEB_CLIENT_ANY, "*/*", None, "multipart/related", "multipart/*", "*", NAVIGATION]
)
@pytest.mark.parametrize("stored", COMPRESSED_PIXELS)
@pytest.mark.parametrize("count", [1, 3])
def test_whoever_takes_anything_gets_a_multipart_of_stored_bytes_by_their_media_type(header, stored, count):
    expected = FrameForm(True, media_type_of(stored.transfer_syntax_uid), stored.transfer_syntax_uid)

    assert frames(header, stored, count) == expected


@pytest.mark.parametrize(
    ("name", "uid", "sent"),
    [
        ("image/jls", JLS, "image/jls"),
        ("image/x-jls", JLS, "image/jls"),
        ("image/dicom-rle", RLE, "image/dicom-rle"),
        ("image/x-dicom-rle", RLE, "image/dicom-rle"),
        ("image/jpeg", JPEG, "image/jpeg"),
        ("image/jpeg", JPEG_LOSSLESS, "image/jpeg"),
        ("image/jp2", J2K, "image/jp2"),
        ("image/jpx", "1.2.840.10008.1.2.4.92", "image/jpx"),
        ("image/jphc", HTJ2K, "image/jphc"),
        ("image/jphc", "1.2.840.10008.1.2.4.202", "image/jphc"),
        ("image/jphc", "1.2.840.10008.1.2.4.203", "image/jphc"),
        ("image/jxl", "1.2.840.10008.1.2.4.110", "image/jxl"),
        ("image/*", JLS, "image/jls"),
        ("IMAGE/JLS", JLS, "image/jls"),
        ("video/mpeg", "1.2.840.10008.1.2.4.100", "video/mpeg"),
        ("video/mp4", "1.2.840.10008.1.2.4.102.1", "video/mp4"),
        ("video/H265", "1.2.840.10008.1.2.4.107", "video/H265"),
    ],
)
def test_the_media_type_of_the_stored_syntax_gets_stored_bytes(name, uid, sent):
    stored = StoredPixels(uid, is_native=False)

    assert frames(f'multipart/related; type="{name}"', stored, 2) == FrameForm(True, sent, uid)
    assert frames(f'multipart/related; type="{name}"; transfer-syntax={uid}', stored) == FrameForm(True, sent, uid)
    assert frames(name, stored) == FrameForm(False, sent, uid)


@pytest.mark.parametrize(
    ("stored", "media_type"),
    [
        (StoredPixels(JPEG, False), "image/jpeg"),
        (StoredPixels(JLS, False), "image/jls"),
        (StoredPixels("1.2.840.10008.1.2.4.91", False), "image/jp2"),
        (StoredPixels(RLE, False), "application/octet-stream"),
        (StoredPixels(HTJ2K, False), "application/octet-stream"),
        (StoredPixels(ELE, True), "application/octet-stream"),
    ],
)
def test_microscopy_list_gets_the_member_that_names_the_stored_syntax(stored, media_type):
    assert frames(MICROSCOPY, stored) == FrameForm(True, media_type, stored.sent_syntax_uid)


@pytest.mark.parametrize("stored", COMPRESSED_PIXELS)
@pytest.mark.parametrize(
    "header",
    [
        'multipart/related; type="application/octet-stream"',
        "application/octet-stream",
        f'multipart/related; type="application/octet-stream"; transfer-syntax={ELE}',
        'multipart/related; type="image/png"',
        "text/html",
    ],
)
def test_decoded_pixels_of_a_compressed_image_are_406_with_the_way_out(header, stored):
    """PS3.18 §8.7.3: octet-stream without a transfer syntax means decoded, which the stored bytes are not."""
    with pytest.raises(NotAcceptable) as caught:
        frames(header, stored)

    assert stored.transfer_syntax_uid in caught.value.detail
    assert "transfer-syntax=*" in caught.value.detail
    assert all(stored.transfer_syntax_uid in available for available in caught.value.available)


@pytest.mark.parametrize("stored", NATIVE_PIXELS)
@pytest.mark.parametrize(
    "header",
    ['multipart/related; type="application/octet-stream"', f"multipart/related; type=*/*; transfer-syntax={ELE}"],
)
def test_octet_stream_without_a_syntax_is_what_native_pixels_are(header, stored):
    assert frames(header, stored, 4) == FrameForm(True, "application/octet-stream", ELE)


def test_another_member_of_the_list_may_fit_where_decoding_would_be_needed():
    header = 'multipart/related; type="application/octet-stream", multipart/related; type="image/jls";q=0.1'

    assert frames(header, StoredPixels(JLS, False)) == FrameForm(True, "image/jls", JLS)


def test_a_list_joined_by_bare_commas_is_read():
    """OHIF's `acceptHeader` setting."""
    header = f"multipart/related; type=application/octet-stream; transfer-syntax={ELE},image/jls;q=0.5"

    assert frames(header, StoredPixels(ELE, True)) == FrameForm(True, "application/octet-stream", ELE)
    assert frames(header, StoredPixels(JLS, False)) == FrameForm(False, "image/jls", JLS)


@pytest.mark.parametrize("stored", [*COMPRESSED_PIXELS[:2], *COMPRESSED_PIXELS[3:], *NATIVE_PIXELS])
def test_a_named_other_syntax_is_406(stored):
    """OHIF's `requestTransferSyntaxUID`; wsidicom probes the syntaxes of a slide by 406."""
    with pytest.raises(NotAcceptable):
        frames('multipart/related; type="image/jls"; transfer-syntax="1.2.840.10008.1.2.4.80"', stored)


def test_a_media_type_with_the_syntax_of_another_is_406():
    with pytest.raises(NotAcceptable):
        frames(f'multipart/related; type="image/jp2"; transfer-syntax={JLS}', StoredPixels(JLS, False))


def test_the_stored_little_endian_syntax_may_be_named_but_big_endian_may_not():
    """Frames of implicit, explicit and deflated data sets are the same bytes; big-endian ones are never sent raw."""
    for uid in (IMPLICIT, DEFLATED):
        header = f"multipart/related; type=application/octet-stream; transfer-syntax={uid}"
        assert frames(header, StoredPixels(uid, True)).transfer_syntax_uid == ELE
    with pytest.raises(NotAcceptable):
        frames(
            f"multipart/related; type=application/octet-stream; transfer-syntax={BIG_ENDIAN}",
            StoredPixels(BIG_ENDIAN, True, is_big_endian=True),
        )


@pytest.mark.parametrize(
    "header", ["application/octet-stream; transfer-syntax=*", f"application/octet-stream; transfer-syntax={JLS}"]
)
def test_one_frame_goes_alone_when_a_bare_media_type_is_asked(header):
    assert frames(header, StoredPixels(JLS, False)) == FrameForm(False, "application/octet-stream", JLS)


def test_several_frames_need_a_multipart():
    with pytest.raises(NotAcceptable) as caught:
        frames("application/octet-stream; transfer-syntax=*", StoredPixels(JLS, False), 2)

    assert "multipart" in caught.value.detail
    assert all(available.startswith("multipart/related") for available in caught.value.available)


def test_the_order_of_the_client_decides_between_equals():
    single = "application/octet-stream; transfer-syntax=*"

    assert not frames(f"{single}, {OHIF_UNQUOTED}", StoredPixels(JLS, False)).multipart
    assert frames(f"{OHIF_UNQUOTED}, {single}", StoredPixels(JLS, False)).multipart


def test_zero_weight_excludes_what_a_wildcard_would_take():
    header = 'multipart/related; type="image/jls";q=0, */*'

    assert frames(header, StoredPixels(JLS, False)).media_type == "application/octet-stream"


def test_an_unknown_encapsulated_syntax_is_octet_stream_under_its_own_uid():
    private = StoredPixels("1.3.46.670589.33.1.4.1", is_native=False)

    assert frames("*/*", private) == FrameForm(True, "application/octet-stream", private.transfer_syntax_uid)
    with pytest.raises(NotAcceptable):
        frames("application/octet-stream", private)


def test_the_query_parameter_counts_for_frames():
    form = frames("*/*", StoredPixels(JLS, False), query=("application/octet-stream; transfer-syntax=*",))

    assert form == FrameForm(False, "application/octet-stream", JLS)


@given(
    header=st.sampled_from(
        [OHIF_UNQUOTED, OHIF_QUOTED, DICOMWEB_CLIENT_ANY, MICROSCOPY, "image/jpeg", "image/*", "*/*"]
    ),
    stored=st.sampled_from(NATIVE_PIXELS + COMPRESSED_PIXELS),
    count=st.integers(1, 5),
)
def test_a_form_never_names_another_syntax_than_the_bytes_have(header, stored, count):
    try:
        form = frames(header, stored, count)
    except NotAcceptable:
        return

    assert form.transfer_syntax_uid == (ELE if stored.is_native else stored.transfer_syntax_uid)
    assert form.multipart or count == 1


@pytest.mark.parametrize("uid", ["1.2\r\nX-Evil: 1", "", "1.2; a=b", "1.2,1.3"])
def test_a_stored_syntax_that_is_no_uid_never_reaches_a_header(uid):
    with pytest.raises(CorruptSeries):
        frames("*/*", StoredPixels(uid, is_native=False))
    with pytest.raises(CorruptSeries):
        choose_instances(accept("*/*"), single=True, stored_syntax_uid=uid)


# Instances


@pytest.mark.parametrize(
    "header",
    [
        None,
        "*/*",
        'multipart/related; type="application/dicom"',  # OHIF's SEG prefetch, Slicer, MONAI Label
        'multipart/related;type="application/dicom";transfer-syntax=*',  # Weasis
        "multipart/related; type=application/dicom; transfer-syntax=*",
        'multipart/related; type="application/dicom"; transfer-syntax="*"',
        'multipart/related; type="*/*"',
        'application/dicom, multipart/related; type="application/dicom"',  # a tie goes to the multipart
        NAVIGATION,
    ],
)
@pytest.mark.parametrize("single", [True, False])
def test_instances_go_as_a_multipart_in_their_stored_syntax(header, single):
    form = choose_instances(parse_accept([] if header is None else [header]), single=single)

    assert form == InstanceForm(multipart=True, accepted=None)
    assert form.accepts_syntax(JLS)
    assert form.accepts_syntax(IMPLICIT)


@pytest.mark.parametrize(
    "header", ["application/dicom", "application/dicom; transfer-syntax=*", "application/dicom, */*;q=0.1"]
)
def test_one_instance_goes_alone_as_application_dicom(header):
    assert choose_instances(accept(header), single=True) == InstanceForm(multipart=False, accepted=None)


def test_several_instances_never_go_alone():
    with pytest.raises(NotAcceptable) as caught:
        choose_instances(accept("application/dicom"), single=False)

    assert caught.value.available == ('multipart/related; type="application/dicom"; transfer-syntax=*',)


def test_named_syntaxes_are_for_the_caller_to_compare():
    header = f'multipart/related; type="application/dicom"; transfer-syntax={JLS}, ' + (
        f'multipart/related; type="application/dicom"; transfer-syntax="{J2K}"'
    )
    form = choose_instances(accept(header), single=False)

    assert form.accepts_syntax(JLS)
    assert form.accepts_syntax(J2K)
    assert not form.accepts_syntax(ELE)


def test_a_refused_syntax_is_not_taken_by_the_star():
    header = f"multipart/related; type=application/dicom; transfer-syntax={JLS};q=0, " + (
        "multipart/related; type=application/dicom; transfer-syntax=*;q=0.5"
    )
    form = choose_instances(accept(header), single=False)

    assert not form.accepts_syntax(JLS)
    assert form.accepts_syntax(ELE)


def test_strict_means_explicit_vr_little_endian_where_no_syntax_is_named():
    """PS3.18 §8.7.3, the default transfer syntax."""
    form = choose_instances(accept('multipart/related; type="application/dicom"'), single=False, strict=True)

    assert form.accepts_syntax(ELE)
    assert not form.accepts_syntax(JLS)
    assert choose_instances(
        accept('multipart/related; type="application/dicom"; transfer-syntax=*'), single=False, strict=True
    ).accepts_syntax(JLS)


def test_a_form_that_refuses_the_stored_syntax_gives_way_to_one_that_takes_it():
    named = f'multipart/related; type="application/dicom"; transfer-syntax={ELE}'

    form = choose_instances(
        accept(named, "application/dicom; transfer-syntax=*;q=0.1"), single=True, stored_syntax_uid=JLS
    )

    assert form == InstanceForm(multipart=False, accepted=None)
    with pytest.raises(NotAcceptable) as caught:
        choose_instances(accept(named), single=True, stored_syntax_uid=JLS)
    assert JLS in caught.value.detail


@pytest.mark.parametrize(
    "header", ["image/jpeg", "image/*", OHIF_UNQUOTED, "application/dicom+json", "application/zip"]
)
def test_what_is_no_instance_is_406(header):
    with pytest.raises(NotAcceptable):
        choose_instances(accept(header), single=True)


# Bulk data


@pytest.mark.parametrize(
    ("header", "own", "multipart", "sent"),
    [
        (None, "application/pdf", False, "application/pdf"),
        ("*/*", "application/pdf", False, "application/pdf"),
        (NAVIGATION, "application/pdf", False, "application/pdf"),
        ("application/octet-stream", "application/pdf", False, "application/octet-stream"),  # OHIF's ECG viewport
        ("application/octet-stream", "application/octet-stream", False, "application/octet-stream"),
        ("application/pdf", "application/pdf", False, "application/pdf"),
        (
            'multipart/related; type="application/pdf", multipart/related; type="application/octet-stream"',  # OHIF
            "application/pdf",
            True,
            "application/pdf",
        ),
        (
            'multipart/related; type="application/pdf", multipart/related; type="application/octet-stream"',
            "application/octet-stream",
            True,
            "application/octet-stream",
        ),
        (DICOMWEB_CLIENT_ANY, "application/pdf", True, "application/pdf"),
        ('multipart/related; type="application/octet-stream"', "application/pdf", True, "application/octet-stream"),
        ("video/mp4, */*;q=0.1", "video/mp4", False, "video/mp4"),
    ],
)
def test_bulk_data_goes_alone_unless_a_multipart_is_asked(header, own, multipart, sent):
    form = choose_bulkdata(parse_accept([] if header is None else [header]), own)

    assert (form.multipart, form.media_type) == (multipart, sent)


def test_bulk_data_of_another_type_is_406():
    with pytest.raises(NotAcceptable) as caught:
        choose_bulkdata(accept("image/png"), "application/pdf")

    assert "application/pdf" in caught.value.available


@pytest.mark.parametrize(
    "own", ["application/pdf\r\nX-Evil: 1", "", "pdf", "a/b; c=d", "application/*", "é/b", "a/" + "b" * 99]
)
def test_a_media_type_from_a_data_set_that_is_none_becomes_octet_stream(own):
    assert choose_bulkdata(accept("*/*"), own).media_type == "application/octet-stream"
