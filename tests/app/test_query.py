"""Search URLs, as the standard words them and as viewers send them (PS3.18 §8.3.4, §10.6.1; PS3.4 §C.2.2.2)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword

from app.errors import RequestError
from app.query import MAX_PAIRS, ParsedSearch, SearchLimits, decode_query, parse_search
from storage.catalogue.query import (
    AnyOf,
    Condition,
    DateTimeInterval,
    Interval,
    Level,
    Match,
    Number,
    Query,
    Text,
    Universal,
)

PATIENT_NAME = 0x00100010
PATIENT_ID = 0x00100020
STUDY_UID = 0x0020000D
SERIES_UID = 0x0020000E


def search(raw: str, level: Level = Level.STUDY, limits: SearchLimits = SearchLimits()) -> ParsedSearch:
    return parse_search(level, None, None, decode_query(raw.encode()), limits)


def match_of(raw: str) -> Match:
    (condition,) = search(raw).query.conditions
    return condition.match


# What viewers send


def test_ohif_study_list_without_filters():
    parsed = search("limit=101&offset=0&fuzzymatching=false&includefield=00081030%2C00080060%2C00080090%2C00100030")

    assert parsed == ParsedSearch(
        Query(
            Level.STUDY,
            include=((0x00081030,), (0x00080060,), (0x00080090,), (0x00100030,)),
            limit=101,
            offset=0,
        )
    )


def test_ohif_study_list_with_every_filter():
    """Keywords and hex tags in one query, wildcards on both sides, a comma list of modalities."""
    parsed = search(
        "PatientName=*doe*&00100020=*A1*&AccessionNumber=*7*&StudyDescription=*chest*&ModalitiesInStudy=CT%2CMR"
        "&limit=101&offset=0&fuzzymatching=false&includefield=00081030&StudyDate=19700102-20261121"
    )

    assert parsed.query.conditions == (
        Condition((PATIENT_NAME,), "PN", Text("*doe*", True)),
        Condition((PATIENT_ID,), "LO", Text("*A1*", True)),
        Condition((0x00080050,), "SH", Text("*7*", True)),
        Condition((0x00081030,), "LO", Text("*chest*", True)),
        Condition((0x00080061,), "CS", AnyOf(("CT", "MR"))),
        Condition((0x00080020,), "DA", Interval("19700102", "20261121")),
    )
    assert parsed.warnings == ()


def test_ohif_series_list_of_a_study():
    parsed = parse_search(
        Level.SERIES, "1.2", None, decode_query(b"includefield=00080021%2C00080031%2C0008103E%2C00200011")
    )

    assert parsed.query == Query(
        Level.SERIES, study_uid="1.2", include=((0x00080021,), (0x00080031,), (0x0008103E,), (0x00200011,))
    )


@pytest.mark.parametrize("separator", [",", "%2C", "\\", "%5C", ",,", "%5C%5C"])
def test_uid_lists_by_comma_and_by_ohifs_backslash(separator):
    assert match_of(f"StudyInstanceUID=1.2{separator}1.3{separator}") == AnyOf(("1.2", "1.3"))


def test_wsidicom_repeats_a_uid_key_for_each_series():
    parsed = search(
        "includefield=AvailableTransferSyntaxUID&00080016=1.2.840.10008.5.1.4.1.1.77.1.6"
        "&0020000E=1.2&0020000E=1.3&0020000E=1.2&00080060=SM",
        Level.INSTANCE,
    )

    assert parsed.query.conditions == (
        Condition((0x00080016,), "UI", AnyOf(("1.2.840.10008.5.1.4.1.1.77.1.6",))),
        Condition((SERIES_UID,), "UI", AnyOf(("1.2", "1.3"))),
        Condition((0x00080060,), "CS", Text("SM", False)),
    )
    assert parsed.query.include == ((0x00083002,),)


@pytest.mark.parametrize("raw", ["PatientName=*x*", "PatientName=%2Ax%2A", "00100010=%2ax%2a", "PatientName=**x***"])
def test_dicomweb_client_encodes_the_wildcards_that_browsers_do_not(raw):
    assert match_of(raw) == Text("*x*", True)


def test_dicomweb_client_repeats_includefield():
    assert search("includefield=PatientName&includefield=00100020").query.include == ((PATIENT_NAME,), (PATIENT_ID,))


def test_weasis_sends_an_empty_pair_and_a_word_of_its_own():
    parsed = search("&includefield=0020000D%2C00080020&includedefaults=false&00100021=A")

    assert parsed.query.include == ((STUDY_UID,), (0x00080020,))
    assert parsed.query.conditions == (Condition((0x00100021,), "LO", Text("A", False)),)
    assert parsed.warnings == ()


def test_slim_asks_for_fuzzy_matching():
    assert search("fuzzymatching=true&PatientName=doe&ModalitiesInStudy=SM").query.fuzzy


# Names of attributes


@pytest.mark.parametrize(
    "name",
    [
        "00400275.00401001",
        "RequestAttributesSequence.RequestedProcedureID",
        "00400275.RequestedProcedureID",
        "RequestAttributesSequence.00401001",
        "requestattributessequence.requestedprocedureid",
    ],
)
def test_a_dotted_path_may_mix_tags_and_keywords(name):
    (condition,) = search(f"{name}=7").query.conditions

    assert condition == Condition((0x00400275, 0x00401001), "SH", Text("7", False))


@pytest.mark.parametrize(
    "name", ["0020000e", "0020000E", "SeriesInstanceUID", "seriesinstanceuid", "SERIESINSTANCEUID"]
)
def test_the_case_of_tags_and_keywords_is_free(name):
    assert search(f"{name}=1.2").query.conditions[0].path == (SERIES_UID,)


@pytest.mark.parametrize(
    "name",
    [
        "PatientNmae",
        "Foo",
        "00100011",
        "99989998",
        "PatientName.PatientID",
        "RequestAttributesSequence.Foo",
        "00400275.99989998",
        "FFFEE000",
        ".".join(["ReferencedStudySequence"] * 10 + ["PatientID"]),
    ],
)
def test_an_attribute_that_dicom_does_not_define_is_refused(name):
    for value in ("1", ""):
        with pytest.raises(RequestError):
            search(f"{name}={value}")


@pytest.mark.parametrize(
    "name",
    ["includedefaults", "token", "x-vendor", "_", "orderby", "FOO", "0010001", "patient_name", "a.b", "Ünï", "."],
)
def test_any_other_unknown_key_is_ignored(name):
    assert search(f"{name}=1&limit=5") == ParsedSearch(Query(Level.STUDY, limit=5))


def test_private_attributes_are_left_out_with_a_warning():
    parsed = search("00230010=AcmeCompany&00231001=Doe")

    assert parsed.query.conditions == ()
    assert parsed.warnings == ("Private attributes are not matched: 00230010, 00231001.",)


@given(st.sampled_from([0x00100010, 0x00100030, 0x00200013, 0x00281050, 0x60000010, 0x00080005, 0x0020000D]))
def test_the_vr_is_that_of_the_dictionary(tag):
    (condition,) = search(f"{tag:08X}=").query.conditions

    assert condition == Condition((tag,), dictionary_VR(tag), Universal())


def test_an_attribute_is_not_repeated():
    """PS3.18 §8.3.4.1; saying the same thing twice, or nothing once, does no harm."""
    with pytest.raises(RequestError):
        search("PatientID=a&PatientID=b")
    with pytest.raises(RequestError):
        search("PatientID=a&00100020=b")
    with pytest.raises(RequestError):
        search("StudyDate=20240101&StudyDate=20240102")
    assert match_of("PatientID=a&00100020=a&PatientID=&PatientID=*") == Text("a", False)


# Values


@pytest.mark.parametrize(
    "raw",
    [
        "PatientName=",
        "PatientName=*",
        "PatientName=***",
        "PatientName",
        "StudyDate=",
        "StudyDate=*",
        "StudyInstanceUID=",
        "StudyInstanceUID=*",
        "StudyInstanceUID=,",
        "InstanceNumber=",
        "InstanceNumber=*",
        "RequestAttributesSequence=",
        "PixelData=",
        "ModalitiesInStudy=,",
        "PatientName=%20",
    ],
)
def test_empty_and_star_match_everything(raw):
    assert match_of(raw) == Universal()


@pytest.mark.parametrize(
    ("raw", "match"),
    [
        ("PatientName=Doe%5EJane", Text("Doe^Jane", False)),
        ("PatientName=Doe+Jane", Text("Doe Jane", False)),
        ("PatientName=D?e", Text("D?e", True)),
        ("PatientName=M%C3%BCller", Text("Müller", False)),
        ("PatientID=100%25_'%22", Text("100%_'\"", False)),
        ("PatientID=a;b", Text("a;b", False)),
        ("StudyDescription=a,b", Text("a,b", False)),
        ("PatientID=%20A1%20%00", Text("A1", False)),
        ("Modality=CT", Text("CT", False)),
        ("Modality=C*", Text("C*", True)),
        ("Modality=CT\\MR%5CPT", AnyOf(("CT", "MR", "PT"))),
        ("ModalitiesInStudy=CT%2CMR", AnyOf(("CT", "MR"))),
        ("ModalitiesInStudy=CT,%20CT,", AnyOf(("CT",))),
        ("RetrieveAETitle=A*", Text("A*", True)),
        ("RetrieveURL=http://*", Text("http://*", True)),
        ("PatientAge=063Y", Text("063Y", False)),
        ("InstanceNumber=01", Number(1)),
        ("InstanceNumber=1.0", Number(1)),
        ("PatientWeight=-7.5e1", Number(-75)),
        ("Rows=512", Number(512)),
        ("SmallestImagePixelValue=-3", Number(-3)),
        ("StudyTime=10", Interval("100000.000000", "105959.999999")),
        ("StudyDate=2024.01.31", Interval("20240131", "20240131")),
        ("AcquisitionDateTime=2024", Interval("20240101000000.000000", "20241231235959.999999")),
    ],
)
def test_values_by_their_vr(raw, match):
    if raw.startswith("ModalitiesInStudy=CT,%20CT"):
        match = AnyOf(("CT",))

    assert match_of(raw) == match


@pytest.mark.parametrize(
    "raw",
    [
        "StudyDate=yesterday",
        "StudyDate=20240230",
        "StudyDate=2024*",
        "StudyDate=20240101,20240102",
        "StudyTime=25",
        "AcquisitionDateTime=x",
        "InstanceNumber=one",
        "InstanceNumber=1*",
        "InstanceNumber=nan",
        "Rows=1_0",
        "Rows=0x10",
        "Rows=1e9999",
        "InstanceNumber=1,2",
        "InstanceNumber=%D9%A1",
        "StudyInstanceUID=1.2.*",
        "StudyInstanceUID=../x",
        "StudyInstanceUID=1/2",
        "StudyInstanceUID=..",
        "StudyInstanceUID=" + "1" * 129,
        "RequestAttributesSequence=x",
        "PixelData=x",
        "Modality=C*,MR",
        "PatientName=a%00b",
        "PatientName=" + "x" * 1025,
        "PatientName=" + "*?" * 600,
    ],
)
def test_a_value_that_does_not_suit_its_vr_is_refused(raw):
    with pytest.raises(RequestError):
        search(raw)


@given(st.sampled_from(["StudyDate", "InstanceNumber", "StudyInstanceUID", "Foo", "limit", "fuzzymatching", "charset"]))
def test_a_refusal_never_repeats_the_value(key):
    """It may be a patient's name, typed into the wrong field."""
    with pytest.raises(RequestError) as caught:
        search(f"{key}=Zyx^Secret!")

    assert "Zyx" not in caught.value.detail


# Dates and times that belong together


@pytest.mark.parametrize(
    ("date", "time"),
    [
        ("StudyDate", "StudyTime"),
        ("SeriesDate", "SeriesTime"),
        ("AcquisitionDate", "AcquisitionTime"),
        ("ContentDate", "ContentTime"),
        ("InstanceCreationDate", "InstanceCreationTime"),
        ("PatientBirthDate", "PatientBirthTime"),
        ("PerformedProcedureStepStartDate", "PerformedProcedureStepStartTime"),
    ],
)
def test_a_date_range_and_a_time_range_are_one_interval(date, time):
    """PS3.18 §8.3.4.1.1: from the first day at the first time to the last day at the last time."""
    query = search(f"{time}=10-12&{date}=20240101-20240103&PatientID=a").query

    assert query.intervals == (
        DateTimeInterval(
            tag_for_keyword(date), tag_for_keyword(time), "20240101100000.000000", "20240103125959.999999"
        ),
    )
    assert [condition.path for condition in query.conditions] == [(PATIENT_ID,)]


@pytest.mark.parametrize(
    ("raw", "count"),
    [
        ("StudyDate=20240101-20240103&StudyTime=10", 2),
        ("StudyDate=20240101&StudyTime=10-12", 2),
        ("StudyTime=10-12", 1),
        ("StudyDate=20240101-&StudyTime=", 2),
        ("StudyDate=20240101-&SeriesTime=10-12", 2),
    ],
)
def test_other_dates_and_times_are_matched_each_for_itself(raw, count):
    query = search(raw).query

    assert query.intervals == ()
    assert len(query.conditions) == count


def test_the_timezone_of_the_request_is_no_filter_and_is_said_not_to_be_applied():
    parsed = search("TimezoneOffsetFromUTC=-0500&StudyDate=20240101")

    assert parsed.query.conditions[0] == Condition((0x00080201,), "SH", Universal())
    assert len(parsed.warnings) == 1
    assert "TimezoneOffsetFromUTC" in parsed.warnings[0]
    assert search("AcquisitionDateTime=2024-0500").warnings == parsed.warnings
    assert search("TimezoneOffsetFromUTC=-0500&PatientID=a").warnings == ()


# Parameters


@pytest.mark.parametrize("value", ["abc", "-1", "1.5", "", "1e3", "%D9%A1", "0x10", "%2B1", "1 0"])
@pytest.mark.parametrize("name", ["limit", "offset"])
def test_limit_and_offset_are_unsigned_integers(name, value):
    with pytest.raises(RequestError):
        search(f"{name}={value}")


def test_limit_is_cut_with_a_warning():
    parsed = search("limit=1000000000&offset=7")

    assert (parsed.query.limit, parsed.query.offset) == (5000, 7)
    assert len(parsed.warnings) == 1
    assert "5000" in parsed.warnings[0]


def test_limits_come_from_the_settings():
    limits = SearchLimits(default_limit=3, max_limit=4)

    assert search("", limits=limits).query.limit == 3
    assert search("limit=9", limits=limits).query.limit == 4


@pytest.mark.parametrize(("value", "limit"), [("0", 0), ("00000000000000000000000005", 5), ("9" * 5000, 5000)])
def test_odd_limits_are_numbers_too(value, limit):
    assert search(f"limit={value}").query.limit == limit


def test_an_offset_stays_within_what_databases_count():
    assert search("offset=" + "9" * 5000).query.offset == 2**53


@pytest.mark.parametrize("name", ["limit", "offset", "fuzzymatching"])
def test_a_parameter_says_one_thing_only(name):
    values = ("true", "false") if name == "fuzzymatching" else ("1", "2")
    with pytest.raises(RequestError):
        search(f"{name}={values[0]}&{name}={values[1]}")
    search(f"{name}={values[0]}&{name}={values[0]}")


@pytest.mark.parametrize(("value", "fuzzy"), [("true", True), ("false", False), ("TRUE", True), ("False", False)])
def test_fuzzymatching_is_true_or_false(value, fuzzy):
    assert search(f"fuzzymatching={value}").query.fuzzy is fuzzy


@pytest.mark.parametrize("name", ["fuzzymatching", "emptyvaluematching", "multiplevaluematching"])
@pytest.mark.parametrize("value", ["yes", "1", "maybe"])
def test_another_truth_is_refused(name, value):
    with pytest.raises(RequestError):
        search(f"{name}={value}")


def test_matching_that_is_not_done_is_warned_of_in_the_words_of_the_standard():
    parsed = search("emptyvaluematching=true&multiplevaluematching=true")

    assert parsed.warnings == (
        "The emptyvaluematching parameter is not supported. Empty Value Matching has not been performed.",
        "The multiplevaluematching parameter is not supported. Multiple Value Matching has not been performed.",
    )
    assert search("emptyvaluematching=false&multiplevaluematching=false").warnings == ()


def test_the_empty_value_of_emptyvaluematching_is_no_bad_date():
    assert search('emptyvaluematching=true&StudyDate=""').query.conditions == (
        Condition((0x00080020,), "DA", Universal()),
    )


def test_includefield_all_beats_the_others():
    query = search("includefield=PatientName,ALL&includefield=00080060").query

    assert query.include_all
    assert query.include == ()


def test_includefield_takes_paths_and_names_each_field_once():
    query = search("includefield=00400275.00401001,PatientName, 00100010,,&includefield=").query

    assert query.include == ((0x00400275, 0x00401001), (PATIENT_NAME,))


def test_unknown_fields_are_left_out_with_a_warning_that_is_safe_in_a_header():
    parsed = search("includefield=PatientNmae,00091010,PatientName,x%0D%0AEvil:1,%22,caf%C3%A9")

    assert parsed.query.include == ((PATIENT_NAME,),)
    (warning,) = parsed.warnings
    assert "PatientNmae, 00091010, 3 more" in warning


@given(st.lists(st.tuples(st.text(max_size=20), st.text(max_size=20)), max_size=8))
def test_no_query_breaks_the_parser_and_every_sentence_is_fit_for_a_header(items):
    try:
        sentences = parse_search(Level.STUDY, None, None, items).warnings
    except RequestError as error:
        sentences = (error.detail,)

    for sentence in sentences:
        assert sentence.isascii()
        assert sentence.isprintable()
        assert '"' not in sentence


@pytest.mark.parametrize("value", ["utf-8", "UTF-8", "utf8"])
def test_charset_utf_8_is_taken(value):
    assert search(f"charset={value}&accept=application/json&orderby=-StudyDate") == ParsedSearch(Query(Level.STUDY))


def test_another_charset_is_refused():
    with pytest.raises(RequestError):
        search("charset=x-none")


# Abuse (T22)


def test_a_list_of_too_many_uids_is_refused():
    uids = ",".join(f"1.{n}" for n in range(10_000))

    assert len(match_of(f"StudyInstanceUID={uids}").values) == 10_000
    with pytest.raises(RequestError):
        search(f"StudyInstanceUID={uids},2")


def test_too_many_attributes_fields_or_pairs_are_refused():
    keywords = [keyword_for_tag(tag) for tag in range(0x00080050, 0x00083002) if keyword_for_tag(tag)]

    assert len(keywords) > 100
    with pytest.raises(RequestError):
        search("&".join(f"{keyword}=" for keyword in keywords))
    with pytest.raises(RequestError):
        search("includefield=" + ",".join(["PatientName"] * 1001))
    with pytest.raises(RequestError):
        decode_query(b"a=b&" * MAX_PAIRS + b"a=b")


def test_a_storm_of_stars_is_one_star():
    assert match_of("PatientName=" + "*" * 1000 + "a" + "*" * 20) == Text("*a*", True)


# The form encoding


def test_pairs_are_decoded_in_their_order():
    assert decode_query(b"a=1&&b=%C3%A9+x&c&=d&a=%3D%26&e=f=g") == [
        ("a", "1"),
        ("b", "é x"),
        ("c", ""),
        ("a", "=&"),
        ("e", "f=g"),
    ]


@pytest.mark.parametrize("raw", [b"PatientName=%FF", b"PatientName=\xe9", b"%C3=1", b"a=%ED%A0%80"])
def test_what_is_not_utf_8_is_refused(raw):
    with pytest.raises(RequestError):
        decode_query(raw)
