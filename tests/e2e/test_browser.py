"""The pages, in a real browser that trusts the CA's root and nothing else of this server's."""

import os
import re
import subprocess
from contextlib import contextmanager

import pytest
from acme import errors, messages
from selenium import webdriver
from selenium.webdriver.common.by import By

from tests.support.acme_client import AcmeClient
from tests.support.clients import find
from tests.support.responders import HttpResponder
from tests.support.server import running

pytestmark = pytest.mark.client


@contextmanager
def chromium(home, *, root=None):
    """A browser with a profile of its own. `root`: the certificate that its owner has made it trust."""
    options, service = webdriver.ChromeOptions(), webdriver.ChromeService(find("chromedriver"))
    options.binary_location = find("chromium")
    for argument in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage"):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    if root is not None:
        trust(home, root)
    service.env = {**os.environ, "HOME": str(home)}
    browser = webdriver.Chrome(options, service)
    browser.set_page_load_timeout(30)
    try:
        yield browser
    finally:
        browser.quit()


def trust(home, root) -> None:
    folder = home / ".pki/nssdb"
    folder.mkdir(parents=True)
    for arguments in (["-N", "--empty-password"], ["-A", "-t", "C,,", "-n", "acme-ca", "-i", str(root)]):
        subprocess.run([find("certutil"), "-d", f"sql:{folder}", *arguments], check=True)


@pytest.fixture(scope="module")
def paused_at_once(tmp_path_factory, dns):
    place = tmp_path_factory.mktemp("browser")
    settings = {"LIMITS__FAILURES_BEFORE_PAUSE": "1", "VALIDATION__RETRY_DELAY": "0.1"}
    with running(place, VALIDATION__RESOLVERS=dns.address, **settings) as started:
        yield started


@pytest.fixture(scope="module")
def browser(paused_at_once, tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("home"), root=paused_at_once.root) as started:
        yield started


def heading(browser) -> str:
    return browser.find_element(By.TAG_NAME, "h1").text


def complaints(browser) -> list[str]:
    """What the console says: of the policies that a page breaks, among others."""
    return [line["message"] for line in browser.get_log("browser") if "favicon.ico" not in line["message"]]


def test_a_browser_without_the_root_shows_nothing(paused_at_once, tmp_path):
    with chromium(tmp_path) as stranger:
        stranger.get(f"{paused_at_once.base}/api/docs")
        assert "ERR_CERT_AUTHORITY_INVALID" in stranger.page_source
        assert "admin API" not in stranger.page_source


def test_the_description_of_the_api_can_be_read_and_its_links_open_what_they_name(browser, paused_at_once):
    browser.get(f"{paused_at_once.base}/api/docs")
    assert heading(browser).startswith("acme-ca admin API")
    body = browser.find_element(By.TAG_NAME, "body")
    assert body.value_of_css_property("max-width") != "none", "the style was not taken"
    route = browser.find_element(By.ID, "policies.put")
    assert not route.is_displayed()
    browser.find_element(By.XPATH, "//summary[.//code='/policies/{scope}'][b='PUT']").click()
    assert "within two seconds" in body.text
    schema = browser.find_element(By.ID, "NameRules")
    assert not schema.is_displayed()
    route.find_element(By.LINK_TEXT, "NameRules").click()
    assert schema.is_displayed()
    assert "deny" in schema.text
    assert complaints(browser) == []


def test_the_owner_of_a_paused_account_follows_the_link_and_lifts_the_pause(
    browser, paused_at_once, new_hosts
):
    (name,) = new_hosts(1)
    with AcmeClient(paused_at_once) as owner, HttpResponder(port=paused_at_once.http01_port) as web:
        owner.register()
        order = owner.order(name)
        owner.answer(order.authorizations[0], web, spoilt=True)
        with pytest.raises(errors.ValidationError):
            owner.await_valid(order)
        with pytest.raises(messages.Error) as refused:
            owner.order(name)
        (link,) = re.findall(r"https://\S+/unpause/\S+", refused.value.detail)
        browser.get(link.rstrip("."))
        assert heading(browser) == "This account is paused"
        assert name in browser.find_element(By.TAG_NAME, "ul").text
        assert browser.find_element(By.TAG_NAME, "body").value_of_css_property("max-width") != "none"
        with pytest.raises(messages.Error):
            owner.order(name)
        browser.find_element(By.TAG_NAME, "button").click()
        assert heading(browser) == "The pause is lifted"
        assert name in browser.find_element(By.TAG_NAME, "ul").text
        assert complaints(browser) == []
        owner.issue(name, web=web)
        browser.get(link.rstrip("."))
        assert heading(browser) == "Nothing is paused"


def test_a_link_that_is_no_good_is_told_to_a_person(browser, paused_at_once):
    browser.get(f"{paused_at_once.base}/acme/unpause/{'A' * 50}")
    assert heading(browser) == "That did not work"
    assert "order again" in browser.find_element(By.TAG_NAME, "p").text
