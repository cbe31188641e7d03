"""Settings: read from the environment, refused where they make no sense, with a sentence that says what to do."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from app.settings import Settings, refuse_unknown_variables


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"CODWEB_{name.upper()}", raising=False)


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CODWEB_PORT", "9000")
    monkeypatch.setenv("CODWEB_SEARCH_EMPTY_STATUS", "204")
    monkeypatch.setenv("CODWEB_ALLOWED_HOSTS", "pacs.example.org, *.clinic.example.org")
    monkeypatch.setenv("CODWEB_STATE_DIR", "/var/lib/codweb")

    settings = Settings()

    assert settings.port == 9000
    assert settings.search_empty_status == 204
    assert settings.allowed_hosts == ("pacs.example.org", "*.clinic.example.org")
    assert settings.state_dir == Path("/var/lib/codweb")


@pytest.mark.parametrize(
    ("orthanc", "ours"), [("Full", "full"), ("MainDicomTags", "main"), ("Extrapolate", "extrapolate"), ("main", "main")]
)
def test_orthancs_names_of_the_metadata_modes_work(monkeypatch: pytest.MonkeyPatch, orthanc: str, ours: str) -> None:
    monkeypatch.setenv("CODWEB_STUDIES_METADATA", orthanc)
    monkeypatch.setenv("CODWEB_SERIES_METADATA", orthanc)

    settings = Settings()

    assert (settings.studies_metadata, settings.series_metadata) == (ours, ours)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("series_metadata", "everything"),
        ("series_extrapolated_tags", "NoSuchKeyword"),
        ("series_extrapolated_tags", "RequestAttributesSequence"),
        ("trusted_proxies", "not-a-network"),
        ("public_url", "pacs.example.org"),
        ("port", "70000"),
        ("search_empty_status", "404"),
        ("revalidate_seconds", "-1"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused_at_start(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"CODWEB_{name.upper()}", value)

    with pytest.raises(ValidationError, match=name):
        Settings()


def test_contradictory_settings_say_what_to_write_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CODWEB_SEARCH_DEFAULT_LIMIT", "10000")

    with pytest.raises(ValidationError, match="CODWEB_SEARCH_MAX_LIMIT"):
        Settings()


def test_a_misspelt_variable_is_refused_and_the_right_one_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CODWEB_PUBLIC_UR", "https://pacs.example.org/dicomweb")

    with pytest.raises(ValueError, match="did you mean CODWEB_PUBLIC_URL"):
        refuse_unknown_variables()


def test_the_slash_at_the_end_of_the_public_url_does_not_matter() -> None:
    assert Settings(public_url="https://a.example.org/dicomweb/").public_url == "https://a.example.org/dicomweb"


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8042"),
        ("::1", "http://[::1]:8042"),
        ("0.0.0.0", "http://localhost:8042"),
        ("::", "http://localhost:8042"),
    ],
)
def test_the_servers_own_address_is_one_that_can_be_opened(host: str, url: str) -> None:
    assert Settings(host=host).local_url == url
