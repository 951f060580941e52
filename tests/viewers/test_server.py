"""The server: this machine only, by its own name only, no path in any address, everything escaped."""

import http.client
import io
import json
import re
import socket
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from medexp.errors import ConfigurationError
from medexp.viewers.flags import Flags
from medexp.viewers.server import Review
from tests.synthetic.wells import SHAPE
from tests.viewers.conftest import MASKS, NAMES


@pytest.fixture
def review(tmp_path, slides):
    flags = Flags(tmp_path / "flags.csv", slides, "ada")
    with Review(slides, flags, title='"A" <B>', interval_s=3, alpha=0.5, port=0) as opened:
        yield opened


def ask(review, path, *, method="GET", body=None, **headers):
    place = http.client.HTTPConnection("127.0.0.1", review.port, timeout=10)
    try:
        place.request(method, path, body, headers)
        answer = place.getresponse()
        return answer, answer.read()
    finally:
        place.close()


def post(review, path, content, **headers):
    sent = {"X-Token": review.token, **headers}
    return ask(review, path, method="POST", body=json.dumps(content), **sent)


def test_it_listens_on_this_machine_only_whatever_the_environment_says(tmp_path, slides, monkeypatch):
    monkeypatch.setenv("HOST", "0.0.0.0")
    with Review(slides, Flags(tmp_path / "f.csv", slides, "a"), title="t", interval_s=1, alpha=1, port=0) as opened:
        assert opened._server.server_address[0] == "127.0.0.1"
        assert urlsplit(opened.address).hostname == "127.0.0.1"


def test_a_taken_port_is_said(review, tmp_path, slides):
    with pytest.raises(ConfigurationError, match=r"view.*port: expected a free port"):
        Review(slides, Flags(tmp_path / "f.csv", slides, "a"), title="t", interval_s=1, alpha=1, port=review.port)


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "", "127.0.0.1", "127.0.0.1.evil.example"])
def test_another_host_name_is_refused(review, host):
    for method in ("GET", "POST"):
        answer, content = ask(review, "/", method=method, body="{}" if method == "POST" else None, Host=host)
        assert (answer.status, content) == (403, b"Forbidden")


@pytest.mark.parametrize(
    "path",
    [
        "/../../etc/passwd", "/image/../../../etc/passwd", "/image/%2e%2e%2fetc%2fpasswd", "/image/-1.png",
        "/image/3.png", "/image/99999999999999999999.png", "/mask/%D9%A1.png", "/mask/1.png/",
        "/?case=../../etc/passwd", "//etc/passwd", "/image/", "/static/app.js", "/favicon.ico",
    ],
)  # fmt: skip
def test_what_is_no_picture_is_not_found(review, path):
    answer, content = ask(review, path)
    assert (answer.status, content) == (404, b"Not Found")


def test_pictures_are_the_image_and_its_transparent_mask(review):
    for index, mask in enumerate(MASKS):
        gray = Image.open(io.BytesIO(ask(review, f"/image/{index}.png")[1]))
        over = np.asarray(Image.open(io.BytesIO(ask(review, f"/mask/{index}.png")[1])))
        assert gray.size == SHAPE[::-1]
        np.testing.assert_array_equal(over[..., 3] > 0, mask > 0)


def test_names_cannot_leave_their_place(review):
    page = ask(review, "/")[1].decode()
    assert NAMES[0] not in page
    assert "\\u003cscript\\u003ealert(1)\\u003c" in page
    assert "<title>&#34;A&#34; &lt;B&gt;</title>" in page
    assert page.count("<script") == page.count("</script>") == 1


def test_the_page_needs_no_network(review):
    answer, content = ask(review, "/")
    assert not re.search(rb"https?://|//[a-z]+\.", content)
    policy = answer.getheader("Content-Security-Policy")
    assert policy.startswith("default-src 'none'")
    assert f"script-src 'nonce-{review.nonce}'" in policy
    assert "unsafe" not in policy


def test_flags_come_back(review):
    answer, content = post(review, "/flag", {"index": 1, "reason": "merged"})
    assert (answer.status, json.loads(content)) == (200, {"1": "merged"})
    assert json.loads(ask(review, "/flags")[1]) == {"1": "merged"}
    assert review.flags.reasons() == {1: "merged"}
    assert json.loads(post(review, "/flag", {"index": 1, "reason": None})[1]) == {}


@pytest.mark.parametrize("token", ["", "wrong", "é"])
def test_a_change_without_the_token_of_the_page_is_refused(review, token):
    answer, _ = post(review, "/flag", {"index": 1, "reason": "x"}, **{"X-Token": token.encode().decode("latin-1")})
    assert answer.status == 403
    assert post(review, "/quit", {}, **{"X-Token": "no"})[0].status == 403
    assert review.flags.reasons() == {}
    assert not review.ended.is_set()


@pytest.mark.parametrize(
    "body", ['{"index": 7, "reason": "x"}', '{"index": 0, "reason": 3}', "[1]", "{", '{"index": "../x"}']
)
def test_malformed_flags_are_refused(review, body):
    answer, _ = ask(review, "/flag", method="POST", body=body, **{"X-Token": review.token})
    assert answer.status == 400
    assert review.flags.reasons() == {}


def test_a_large_body_is_refused(review):
    answer, _ = ask(review, "/flag", method="POST", body=b"x" * 20_000, **{"X-Token": review.token})
    assert answer.status == 413


def test_quitting_ends_the_review(review):
    assert post(review, "/quit", {})[0].status == 200
    assert review.ended.wait(10)


def test_other_methods_do_not_exist(review):
    assert ask(review, "/", method="PUT", body="x")[0].status == 501


def test_after_the_end_nothing_listens(tmp_path, slides):
    with Review(slides, Flags(tmp_path / "f.csv", slides, "a"), title="t", interval_s=1, alpha=1, port=0) as opened:
        port = opened.port
    with socket.socket() as place, pytest.raises(ConnectionRefusedError):
        place.connect(("127.0.0.1", port))
