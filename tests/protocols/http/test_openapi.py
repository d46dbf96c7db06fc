"""The document that describes the API."""

from darner_core.protocols.http.contract import Answer, Endpoint
from darner_core.protocols.http.openapi import document
from tests.support.harness import ROOT
from tests.support.http import Http


def test_it_is_told(http: Http) -> None:
    found = http.get("openapi.json").json
    assert found["openapi"] == "3.1.0"
    assert {"get", "put", "delete"} == set(found["paths"]["/api/v1/queues/{queue}"])
    names = [one["operationId"] for path in found["paths"].values() for one in path.values()]
    assert len(names) == len(set(names))


def test_the_page_about_the_api_names_every_endpoint(http: Http) -> None:
    page = (ROOT / "docs" / "http-api.md").read_text()
    for path in http.get("openapi.json").json["paths"]:
        last = "/" + path.rpartition("/")[2]
        assert f"{last}`" in page or path in page, path


def test_an_endpoint_is_described_by_what_it_is() -> None:
    endpoint = Endpoint("GET", "/api/v1/x/{id}", lambda asked: Answer(), "About.", answers={200: "Fine."})
    told = document([endpoint])["paths"]["/api/v1/x/{id}"]["get"]
    assert told["summary"] == "About."
    assert [one["name"] for one in told["parameters"]] == ["id"]
    assert told["responses"]["200"] == {"description": "Fine."}
