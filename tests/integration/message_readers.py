"""Readers of messages for test_messages: one that knows only what RFC 5322, 2045 and 2047 say and forgives nothing, Python's email package, and
GMime (gmime_probe). Each gives the same record: header fields, mailboxes, the tree of parts."""
import base64
import binascii
import email
import email.header
import email.policy
import email.utils
import json
import re
import subprocess

LINE_MAX = 998  # RFC 5322 2.1.1
LINE_WISHED = 78
ENCODED_WORD = re.compile(r"=\?utf-8\?([QB])\?([!->@-~]*)\?=")


class Flaw(Exception):
    """What is wrong with a message."""


def must(condition, what, *details):
    if not condition:
        raise Flaw(what % details if details else what)


# -- the form --

def lines(text):
    """Body text: any line end is one, and the last line is ended (or the text empty)."""
    text = re.sub("\r\n|\r|\n", "\n", text)
    return text if text == "" or text.endswith("\n") else text + "\n"


def check_wire(raw, facts):
    """What holds for every message, and what the renderer says of it."""
    must(raw.endswith(b"\r\n"), "the last line has no end")
    must(b"\0" not in raw, "a NUL")
    must(not re.search(rb"\r(?!\n)|(?<!\r)\n", raw), "a bare CR or LF")
    header, separator, body = raw.partition(b"\r\n\r\n")
    must(separator and len(header) + 4 == facts["header_length"], "the header ends elsewhere than told")
    must(max(map(len, raw.split(b"\r\n"))) <= LINE_MAX, "a line over %d", LINE_MAX)
    must(facts["dots"] == (raw.startswith(b".") or b"\r\n." in raw), "leading dots are not as told")
    must(facts["8bit"] == (not body.isascii()), "8-bit is not as told")
    return header, body


def check_composed_form(header, body, utf8):
    """What holds for those that bypost composed: 7-bit, folded, encoded-words as RFC 2047 2 wants, nothing that relays change."""
    must(body.isascii(), "an 8-bit body")
    must(utf8 or header.isascii(), "an 8-bit header where no address needs it")
    for line in header.split(b"\r\n"):
        must(line.strip(b" \t") != b"", "a line of white space in the header")
        if len(line) > LINE_WISHED:
            value = line if line[:1] in b" \t" else line.partition(b":")[2]
            value = re.sub(rb'"(?:[^"\\]|\\.)*"', b"quoted", value.strip(b" \t"))
            must(not re.search(rb"[ \t]", value), "a line of %d that could be folded: %r", len(line), line[:120])
        for word in re.findall(rb"=\?utf-8\?[QB]\?[^? ]*\?=", line):
            must(len(word) <= 75, "an encoded-word of %d", len(word))
            must(len(line) <= 76, "a line of %d with an encoded-word: %r", len(line), line)
            word_decoded(word.decode())
    for line in body.split(b"\r\n"):
        must(len(line) <= LINE_WISHED or line.startswith(b"Content-ID:"), "a body line of %d: %r", len(line), line[:120])
        must(line[-1:] not in (b" ", b"\t"), "white space at the end of a body line")
        must(not line.startswith((b".", b"From ")), "a body line that relays change: %r", line[:20])


def word_decoded(word):
    """One encoded-word: of whole characters (RFC 2047 5)."""
    kind, text = ENCODED_WORD.fullmatch(word).groups()
    try:
        if kind == "B":
            return base64.b64decode(text, validate=True).decode("utf-8")
        must(re.fullmatch("(?:[!-<>@-~]|=[0-9A-F]{2})*", text), "%s is no Q", word)
        return binascii.a2b_qp(text.encode(), header=True).decode("utf-8")
    except (UnicodeDecodeError, binascii.Error) as error:
        raise Flaw("%s: %s" % (word, error)) from error


# -- the strict reader --

def decoded(text):
    """Unstructured text (RFC 2047 6.2): white space between two encoded-words does not count."""
    out, blanks, after_word = [], "", False
    for token in re.split("([ \t]+)", text):
        if token.strip(" \t") == "":
            blanks = token
            continue
        is_word = ENCODED_WORD.fullmatch(token) is not None
        if not (is_word and after_word):
            out.append(blanks)
        out.append(word_decoded(token) if is_word else token)
        blanks, after_word = "", is_word
    return "".join(out).strip(" ")


def mailboxes(value):
    """phrase <address>, or an address, with commas between (RFC 5322 3.4)."""
    out, at = [], 0
    token = re.compile(r'[ \t]+|"(?:[^"\\\r\n]|\\.)*"(?:@[^\s,<>"]+)?|<(?:"(?:[^"\\]|\\.)*"|[^<>"\s,;()])+>|,|[^\s,<>"();:\\\[\]]+')
    words, address = [], None
    while at <= len(value):
        match = token.match(value, at) if at < len(value) else None
        must(match or at == len(value), "an address list goes wrong here: %r", value[at : at + 60])
        text = match.group() if match else ","
        at += len(text)
        if text[0] == "<":
            must(address is None, "two addresses without a comma")
            address = text[1:-1]
        elif text == ",":
            if address is None and len(words) == 1:
                address, words = words[0], []
            must(address is not None, "a mailbox without an address: %r", words)
            must("@" in address, "%r is no address", address)
            out.append((phrase(words), address))
            words, address = [], None
        elif text.strip(" \t"):
            must(address is None, "text behind an address: %r", text)
            words.append(text)
    return out


def phrase(words):
    out, after_word = [], False
    for word in words:
        is_encoded = ENCODED_WORD.fullmatch(word) is not None
        if out and not (is_encoded and after_word):
            out.append(" ")
        if is_encoded:
            # RFC 2047 5 (3): the characters of an encoded-word in a phrase
            must(re.fullmatch("[A-Za-z0-9!*+/=_-]*", ENCODED_WORD.fullmatch(word).group(2)), "%s may not stand in a phrase", word)
            out.append(word_decoded(word))
        else:
            out.append(re.sub(r"\\(.)", r"\1", word[1:-1]) if word[0] == '"' else word)
        after_word = is_encoded
    return "".join(out)


def fields_of(header):
    """[(name, unfolded value)]"""
    out = []
    for line in header.decode("utf-8", "surrogateescape").split("\r\n"):
        if line[0] in " \t":
            must(out, "the header begins with a continuation")
            out[-1][1] += line
        else:
            name, colon, value = line.partition(":")
            must(colon and re.fullmatch("[!-9;-~]+", name), "no field: %r", line[:60])
            out.append([name, value])
    return [(name, value) for name, value in out]


# -- Python --

def python_tree(part):
    must(not part.defects, "defects: %s", part.defects)
    if part.is_multipart():
        return (part.get_content_type(), [python_tree(one) for one in part.get_payload()])
    name = part.get_param("filename", None, "content-disposition")  # get_filename would trim it, and unquote it twice
    name = email.utils.collapse_rfc2231_value(name) if isinstance(name, tuple) else name
    identifier = part.get("Content-ID")
    parameters = {one: email.utils.collapse_rfc2231_value(value) if isinstance(value, tuple) else value for one, value in part.get_params([])[1:]}
    return {"type": part.get_content_type(), "parameters": parameters, "bytes": part.get_payload(decode=True), "filename": name, "charset": part.get_content_charset(),
            "disposition": part.get_content_disposition(), "content_id": None if identifier is None else str(identifier).strip("<>")}


def python_decoded(value):
    return str(email.header.make_header(email.header.decode_header(value))) if "=?" in value else value


def python_read(raw):
    message = email.message_from_bytes(raw)
    fields = [(name, re.sub("\r?\n", "", value)) for name, value in message.items() if isinstance(value, str)]  # else it is 8-bit
    out = {"fields": [(name, python_decoded(value)) for name, value in fields], "tree": python_tree(message)}
    for name in ("From", "Sender", "Reply-To", "To", "Cc"):
        values = [value for one, value in fields if one == name]
        if values and values != ["undisclosed-recipients:;"]:
            out[name] = [(python_decoded(display), address) for display, address in email.utils.getaddresses(values)]
    out["date"] = email.utils.parsedate_to_datetime(message["Date"]).timestamp()
    return out


def policy_tree(part):
    must(not part.defects, "defects: %s", part.defects)
    if part.is_multipart():
        return (part.get_content_type(), [policy_tree(one) for one in part.iter_parts()])
    name = part["Content-Disposition"].params.get("filename") if "Content-Disposition" in part else None
    must(not part["Content-Type"].defects, "defects of Content-Type: %s", part["Content-Type"].defects)
    return {"type": part.get_content_type(), "parameters": dict(part["Content-Type"].params), "bytes": part.get_payload(decode=True), "filename": name}


def policy_read(raw):
    """The parser of email.policy, which is slow, and puts spaces between adjacent encoded-words of a phrase: names are not looked at."""
    message = email.message_from_bytes(raw, policy=email.policy.SMTP)
    out = {"tree": policy_tree(message), "date": message["Date"].datetime.timestamp(), "subject": message["Subject"]}
    for name in ("From", "Sender", "Reply-To", "To", "Cc"):
        if name in message:
            out[name] = [one.addr_spec for one in message[name].addresses]
    return out


# -- GMime --

def gmime_tree(part):
    if "parts" in part:
        return (part["type"].lower(), [gmime_tree(one) for one in part["parts"]])
    return {"type": part["type"].lower(), "parameters": part["parameters"], "bytes": base64.b64decode(part["bytes"]), "filename": part["filename"], "charset": part["charset"],
            "disposition": part["disposition"], "content_id": part["content_id"]}


def gmime_read(probe, messages):
    """What it makes of each."""
    text = b"".join(b"%d\n" % len(raw) + raw for raw in messages)
    out = subprocess.run([probe], input=text, stdout=subprocess.PIPE, check=True, timeout=300).stdout.splitlines()
    must(len(out) == len(messages), "GMime reads %d of %d messages", len(out), len(messages))
    records = []
    for line in out:
        read = json.loads(line)
        record = {"fields": [(name, value or "") for name, value in read["fields"] + read["body_fields"]], "tree": gmime_tree(read["body"]), "message_id": read["message_id"]}
        for name in ("From", "Sender", "Reply-To", "To", "Cc"):
            found = read[name.lower().replace("-", "_")]
            if found and len(found[0]) == 2:  # else a group: undisclosed-recipients
                record[name] = [(display or "", address) for display, address in found]
        records.append(record)
    return records
