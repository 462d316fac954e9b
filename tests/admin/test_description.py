"""The OpenAPI document and the page: from the code's own models, complete, and without anything from elsewhere."""

import re

import pytest

from acme_ca.admin.openapi import document
from acme_ca.admin.routes import ROUTES
from acme_ca.core.codes import Code
from tests.support.admin import assert_refused
from tests.support.fixtures import IN_SESSION_LOOP

pytestmark = IN_SESSION_LOOP


async def test_every_route_is_described_with_its_permission(ca):
    described = (await ca.client.request("GET", f"{ca.client.public_url}/api/openapi.json")).json
    assert described["openapi"] == "3.1.0"
    for route in ROUTES:
        operation = described["paths"][route.path][route.method.lower()]
        assert operation["operationId"] == route.name
        assert operation["security"] == [] or route.permission in operation["description"]
        assert {one["name"] for one in operation["parameters"] if one["in"] == "path"} == set(
            route.parameters
        )
    assert described == document(ROUTES, server=ca.client.public_url)


async def test_every_reference_leads_somewhere_and_every_field_of_a_body_is_explained(ca):
    described = document(ROUTES, server="https://ca.test")
    schemas = described["components"]["schemas"]
    for name in re.findall(r"#/components/schemas/([^'\"]+)", str(described)):
        assert name in schemas


async def test_the_page_needs_nothing_from_elsewhere_and_runs_nothing(ca):
    answer = await ca.client.request("GET", f"{ca.client.public_url}/api/docs")
    page = answer.body.decode()
    assert answer.content_type == "text/html"
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert "<script" not in page
    assert set(re.findall(r'(?:href|src)="?([^"# >]+)', page)) == {"openapi.json", "docs.css"}
    assert all(f'id="{route.name}"' in page for route in ROUTES)
    style = await ca.client.request("GET", f"{ca.client.public_url}/api/docs.css")
    assert (style.status, style.content_type) == (200, "text/css")
    assert "url(" not in style.body.decode()


@pytest.mark.parametrize("path", ["/api", "/api/", "/api/v1", "/api/v2/tokens", "/api/tokens/", "/api/docs/"])
async def test_what_is_not_there_is_404(ca, path):
    answer = await ca.client.request("GET", ca.client.public_url + path)
    assert_refused(answer, Code.URL_UNKNOWN, status=404)
