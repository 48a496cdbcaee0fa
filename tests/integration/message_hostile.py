"""Jobs of a producer who wants another header field, another part or another message: for test_messages. Each place of a job that reaches the
header, the structure or the envelope takes each of the payloads, in JSON and in MessagePack."""
import base64
import json
import struct

MARK = "@@PAYLOAD@@"

# Bytes as they would stand in a text: control characters that end lines here or there, look-alikes of them, what ends quotes and brackets, what is no UTF-8.
PAYLOADS = {
    "CR": b"a\rX-Evil: 1",
    "LF": b"a\nX-Evil: 1",
    "CRLF": b"a\r\nX-Evil: 1",
    "a body": b"a\r\n\r\nevil\r\n",
    "an end of DATA": b"a\r\n.\r\nMAIL FROM:<x@evil.example>\r\n",
    "a folded line": b"a\r\n X-Evil: 1\r\n\tb",
    "NUL": b"a\0X-Evil: 1",
    "VT and FF": b"a\x0bX-Evil: 1\x0cb",
    "DEL and ESC": b"a\x7f\x1b[0mb",
    "TAB": b"a\tb",
    "U+0085": "a\u0085X-Evil: 1".encode(),
    "U+2028": "a\u2028X-Evil: 1\u2029b".encode(),
    "low bytes of CR and LF": "a\u010d\u010aX-Evil:\u560d\u560a1".encode(),
    "bidi overrides": "a\u202eX-Evil\u2066b".encode(),
    "an encoded CRLF": b"=?utf-8?Q?a=0D=0AX-Evil:_1?= =?utf-8?B?DQpYLUV2aWw6IDE=?=",
    "half an encoded-word": b"?= =?utf-8?Q?x",
    "URL-encoded CRLF": b"a%0d%0aX-Evil:%201",
    "a quote": b'a" <x@evil.example>, "b',
    "an address": b"a, <x@evil.example>",
    "a bracket": b"a> <x@evil.example",
    "a comment": b"a (b <x@evil.example>",
    "backslashes": b"a\\\\\\",
    "backslash and CRLF": b"a\\\r\nX-Evil: 1",
    "parameters": b"a; filename=evil.exe; name*0*=utf-8''x",
    "a tag": b"a{{evil}}",
    "a boundary": b"--=_",
    "overlong LF": b"a\xc0\x8aX-Evil: 1",
    "a stray byte": b"a\xff\xfeb\x80",
    "a cut character": b"a\xe6\x97",
    "a surrogate": b"a\xed\xa0\x80\xed\xb0\x80b",
    "long": b"y" * 100000,
    "long and wide": "é".encode() * 20000,
    "many words": b"w w " * 20000,
    "leading dot": b".\r\n.",
    "empty": b"",
    "blanks": b" \t ",
}
HARMLESS = b"harmless"


def plain(**fields):
    job = {"from": "ann@example.org", "to": [{"email": "bob@example.net", "name": "Bob"}], "subject": "s", "text": "t", "html": "<p>h</p>"}
    return {name: value for name, value in (job | fields).items() if value is not None}, None


def private(recipient, **fields):
    job, _ = plain(to=None, recipients=[{"to": "bob@example.net"} | recipient], **fields)
    return job, None


def shared(recipient, **fields):
    """The same with its content under a name."""
    content, _ = plain(to=None, **fields)
    return {"recipients": [{"to": "bob@example.net"} | recipient], "content": "c"}, content


def attached(**fields):
    return plain(attachments=[{"filename": "f.txt", "content": base64.b64encode(b"bytes").decode()} | fields])


def merge_data(**fields):
    return {"merge_data": {"v": MARK}}, fields


PLACES = {
    "subject": plain(subject=MARK),
    "subject behind a word": plain(subject="a long word and then " + MARK),
    "from": plain(**{"from": MARK + " <ann@example.org>"}),
    "from in quotes": plain(**{"from": '"%s" <ann@example.org>' % MARK}),
    "from.name": plain(**{"from": {"email": "ann@example.org", "name": MARK}}),
    "from.email": plain(**{"from": {"email": MARK + "@example.org"}}),
    "from.email, domain": plain(**{"from": {"email": "ann@" + MARK + ".example"}}),
    "from.email, quoted": plain(**{"from": {"email": '"' + MARK + '"@example.org'}}),
    "to.name": plain(to=[{"email": "bob@example.net", "name": MARK}, "carl@example.net"]),
    "to.email": plain(to=[{"email": MARK + "@example.net"}]),
    "to.email, quoted": plain(to=[{"email": '"' + MARK + '"@example.net'}]),
    "to.email, literal": plain(to=[{"email": "bob@[" + MARK + "]"}]),
    "cc.name": plain(cc=[{"email": "bob@example.net", "name": MARK}]),
    "bcc.email": plain(bcc=[{"email": MARK + "@example.net"}]),
    "reply_to.name": plain(reply_to={"email": "bob@example.net", "name": MARK}),
    "reply_to.email": plain(reply_to={"email": "bob@" + MARK}),
    "envelope_sender": plain(envelope_sender=MARK),
    "envelope_sender, local part": plain(envelope_sender=MARK + "@example.org"),
    "a header's value": plain(headers={"X-Thing": MARK}),
    "a header's second value": plain(headers={"X-Thing": ["a", MARK]}),
    "a header's name": plain(headers={"X-" + MARK: "v"}),
    "Sender": plain(headers={"Sender": {"email": "s@example.org", "name": MARK}}),
    "list_unsubscribe": plain(list_unsubscribe="https://example.org/" + MARK),
    "list_unsubscribe, mailto": plain(list_unsubscribe="mailto:" + MARK),
    "list_unsubscribe, second": plain(list_unsubscribe=["https://example.org/u", "mailto:" + MARK]),
    "list_id, words": plain(list_id=MARK + " <news.example.org>"),
    "list_id": plain(list_id=MARK + ".example.org"),
    "feedback_id": plain(feedback_id=MARK + ":b:c:sender"),
    "precedence": plain(precedence=MARK),
    "a variable in list_id": private({"merge_data": {"v": MARK}}, list_id="{{v}} <news.example.org>"),
    "a variable in list_id's identifier": private({"merge_data": {"v": MARK}}, list_id="<{{v}}.example.org>"),
    "a variable in feedback_id": private({"merge_data": {"v": MARK}}, feedback_id="{{v}}:b:c:sender"),
    "a raw variable in list_unsubscribe": private({"merge_data": {"v": MARK}}, list_unsubscribe="https://example.org/{{{v}}}"),
    "a section in the subject": private({"merge_data": {"v": [MARK, MARK]}}, subject="{{#v}}{{.}}{{/v}}"),
    "attachment, filename": attached(filename=MARK),
    "attachment, content_type": attached(content_type=MARK),
    "attachment, subtype": attached(content_type="text/" + MARK),
    "attachment, parameter": attached(content_type='text/plain; name="' + MARK + '"'),
    "attachment, content_id": attached(content_id=MARK),
    "attachment, disposition": attached(disposition=MARK),
    "attachment, content": attached(content=MARK),
    "recipients, to.name": private({"to": {"email": "bob@example.net", "name": MARK}}),
    "recipients, to.email": private({"to": MARK}),
    "recipients, a header's value": private({"headers": {"X-Thing": MARK}}),
    "recipients, a header's name": private({"headers": {MARK: "v"}}),
    "id": plain(id=MARK),
    "tenant": plain(tenant=MARK),
    "campaign": plain(campaign=MARK),
    "text": plain(text=MARK),
    "html": plain(html=MARK),
    "a variable in the subject": private({"merge_data": {"v": MARK}}, subject="{{v}}"),
    "a variable within the subject": private({"merge_data": {"v": MARK}}, subject="a {{v}} b {{{v}}}"),
    "a variable in a header": private({"merge_data": {"v": MARK}}, headers={"X-Thing": "{{v}}"}),
    "a variable in a recipient's header": private({"merge_data": {"v": MARK}, "headers": {"X-Thing": "x{{v}}"}}),
    "a variable in list_unsubscribe": private({"merge_data": {"v": MARK}}, list_unsubscribe="https://example.org/{{v}}"),
    "a variable in the texts": private({"merge_data": {"v": MARK}}, text="{{v}}", html="<p>{{v}}{{{v}}}"),
    "a variable for all": private({}, subject="{{v}}", merge_global_data={"v": MARK}),
    "content, subject": shared({}, subject=MARK),
    "content, from.name": shared({}, **{"from": {"email": "ann@example.org", "name": MARK}}),
    "content, a header's value": shared({}, headers={"X-Thing": MARK}),
    "content, a header's name": shared({}, headers={MARK: "v"}),
    "content, list_unsubscribe": shared({}, list_unsubscribe="https://example.org/" + MARK),
    "content, filename": shared({}, attachments=[{"filename": MARK, "content": "eA=="}]),
    "content, a variable in the subject": shared({"merge_data": {"v": MARK}}, subject="{{v}}"),
    "content, a variable in a header": shared({"merge_data": {"v": MARK}}, headers={"X-Thing": "{{v}}"}),
    "content, a variable in list_unsubscribe": shared({"merge_data": {"v": MARK}}, list_unsubscribe="https://example.org/{{v}}"),
    "content, a variable in the texts": shared({"merge_data": {"v": MARK}}, text="line\n{{v}}\nline", html="<p>{{v}}{{{v}}}"),
}


def as_json(value, payload):
    """JSON text with the payload in the mark's place, escaped where JSON wants it."""
    if value is None:
        return b""
    escaped = payload.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
    for byte in list(range(32)):
        escaped = escaped.replace(bytes([byte]), b"\\u%04x" % byte)
    return json.dumps(value, ensure_ascii=False).encode().replace(MARK.encode(), escaped)


def as_json_surrogate(value):
    return json.dumps(value).encode().replace(MARK.encode(), b"a\\ud800b")


def as_msgpack(value, payload):
    """MessagePack, whose strings hold any bytes."""
    if value is None:
        return b""
    if isinstance(value, dict):
        out = struct.pack(">BI", 0xDF, len(value))
        return out + b"".join(as_msgpack(key, payload) + as_msgpack(one, payload) for key, one in value.items())
    if isinstance(value, list):
        return struct.pack(">BI", 0xDD, len(value)) + b"".join(as_msgpack(one, payload) for one in value)
    text = value.encode().replace(MARK.encode(), payload)
    return struct.pack(">BI", 0xDB, len(text)) + text


def jobs(payload):
    """(name of the place, job, content) for each place and form."""
    for place, (job, content) in PLACES.items():
        yield place + ", JSON", as_json(job, payload), as_json(content, payload)
        # A shared content is JSON whatever the job is.
        yield place + ", MessagePack", as_msgpack(job, payload), as_json(content, payload)


def surrogate_jobs():
    for place, (job, content) in PLACES.items():
        yield place + ", \\ud800", as_json_surrogate(job), b"" if content is None else as_json_surrogate(content)
