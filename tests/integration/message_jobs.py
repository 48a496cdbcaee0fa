"""Random jobs for test_messages, of every shape that the decoder takes, in several scripts; and what each of their messages must say: an
oracle that knows what was asked and nothing of how it is written."""
import base64
import functools
import json
import random
import re

DATE_S = 1700000000

SCRIPTS = {
    "ascii": "Hello your order 42 is on-its way! a Re: [list] 100% (parens) \"quoted\" back\\slash a,b;c:d <angle@x> _under_ ?= =?x?= =3D '' ~#|{}",
    "latin": "Größe naïve café Łódź Ñandú žluťoučký kůň Đặng ﬁn Ǆ ªº ÿ",
    "greek": "Καλημέρα κόσμε ᾄ Ἑλλάς τι",
    "cyrillic": "Привіт світ съешь ещё этих мягких булок Ѭ",
    "arabic": "مرحبا بالعالم \u202bنص\u202c \u200fقَلْب لا ١٢٣ \u2067abc\u2069",
    "hebrew": "שָׁלוֹם עולם \u200eabc\u200f ספר־ילדים",
    "devanagari": "नमस्ते दुनिया क्ष्म श्री र\u200dक क\u200cष",
    "thai": "สวัสดีชาวโลกที่นี่ไม่มีช่องว่าง น้ำ กำ",
    "cjk": "日本語 中文字符 한국어 ｆｕｌｌ 、。「」 \u3000 ひらがなカタカナ가각",
    "emoji": "🎉 👩‍👩‍👧‍👦 👍🏽 🇩🇪 ❤️ 1️⃣ 🏴󠁧󠁢󠁥󠁮󠁧󠁿",
    "marks": "e\u0301 Z\u0337\u034e\u0313a\u0335l\u0348go o\u0302\u0300 \u0301",
    "astral": "𝔘𝔫𝔦 𠀀𠮷 𐍈 \U0010ffff \U000e0001",
    "odd": "\u00a0 \u0085 \u2028 \u2029 \ufeff \ufffd \ue000 \ufffe \u200b \u00ad \u061c",
}
WORDS = {name: [word for word in text.split(" ") if word] for name, text in SCRIPTS.items()}

# U-labels; their A-labels are RFC 3492 of them (a_label), for these need no mapping.
LABELS = ["müller", "例え", "пример", "παράδειγμα", "مثال", "उदाहरण", "דוגמה", "ตัวอย่าง", "faß", "實例", "실례", "example", "a-b", "xn--mller-kva", "x" * 63]
LOCALS = ["ann", "first.last+tag", "o'neil", "a=b", "x", "!#$%&'*+-/?=^_`{|}~", '"quoted name"', '"a\\"b\\\\c"', '"semi;colon,comma"', '"at@sign"',
          '".dots."', "n" * 64, "UPPER.Case", "1"]
UTF8_LOCALS = ["ünal", "почта", "用户", "दूत", "👻"]
# Content types with what their parameters stand for.
TYPES = {
    "application/pdf": {}, "image/png": {}, "text/csv; charset=utf-8": {"charset": "utf-8"}, "application/octet-stream": {}, "TEXT/plain": {}, "message/rfc822": {},
    "application/vnd.a+b.c-d_e": {}, "text/calendar; method=REQUEST; name=\"a b.ics\"": {"method": "REQUEST", "name": "a b.ics"},
    "application/x ;a=1 ; b=\"\";\tc=\"\\\\ \\\" ;\"": {"a": "1", "b": "", "c": '\\ " ;'}, "application/x; title=\"Größe, 日本語 👍🏽\"": {"title": "Größe, 日本語 👍🏽"},
    "application/x; title=\"" + "ab " * 60 + "\"": {"title": "ab " * 60}, "application/x; title=\"=?utf-8?Q?x?=\"": {"title": "=?utf-8?Q?x?="},
    "application/x; " + "n" * 40 + "=\"" + "é " * 60 + "\"; z=9": {"n" * 40: "é " * 60, "z": "9"}, "application/x; a=\"" + "b" * 90 + "\"; cc=" + "d" * 61: {"a": "b" * 90, "cc": "d" * 61},
    "application/vnd.openxmlformats-officedocument.presentationml.presentation; v=1.2": {"v": "1.2"}, "image/x; tab=\"a\tb\"; percent=\"%41'*\"": {"tab": "a b", "percent": "%41'*"},
}
FILENAMES = ["a.pdf", "with space.txt", 'quo"te.txt', "semi;colon=.txt", "back\\slash.txt", "../../etc/passwd", "C:\\dir\\file.doc", "perc%41ent.txt", "it's.txt",
             "tab\there.txt", ".hidden", "no-extension", "end\\", "dir/", "a" * 59, "a" * 60, "a" * 61, "a" * 255, "=?utf-8?Q?x?=.txt", "ä" * 127, "日本語ファイル.xlsx",
             "👩‍👩‍👧‍👦" * 10, "(paren).txt", "a*0*=b", "trailing. ", " leading", "'", "%"]
NAMES = ["Ann", "Ann Lee", "Lee, Ann", 'Ann "the" Lee', "back\\slash", "(comment)", "a (b", "O'Neil", "x@y", "<x@y>", "a;b:c", "=?utf-8?Q?x?=", "J. R. Doe",
         "  padded  ", "two  spaces", "tab\tbed", '"', "\\", ",", "group:;", "q" * 58, "q" * 59, "q w" * 40, "Ü" * 128, "😀" * 64, "."]
SECTIONS = ["{{#v0}}a{{v1}}{{/v0}}", "{{^none}}none{{/none}}", "{{#none}}{{never}}{{/none}}", "{{#list}}-{{.}}{{/list}}", "{{^list}}empty{{/list}}",
            "{{#people}}{{name}}/{{v1}}/{{v2}}; {{/people}}", "{{#o}}{{in}}{{#deep}}{{er}}{{{v3}}}{{/deep}}{{/o}}", "{{#o.deep}}{{&er}}{{/o.deep}}"]
BLOCKS = ["\n{{#list}}\n- {{.}}\n{{/list}}\n", "\n  {{! alone }}  \n", "\r\n {{#people}} \r\n{{name}}: {{{v0}}}\r\n{{/people}}\r\n", "\n{{^none}}\n.\n{{/none}}\nFrom x\n"]
BULK_FIELDS = {"list_id": "List-Id", "precedence": "Precedence"}
CUSTOM_NAMES = ["X-Campaign", "x-lower", "List-Id", "In-Reply-To", "References", "Auto-Submitted", "Precedence", "Keywords", "X", "X-" + "n" * 74, "X_%/|~", ".X-Dot", "Importance"]


@functools.lru_cache(maxsize=None)
def a_label(label):
    return label if label.isascii() else "xn--" + label.encode("punycode").decode()


def a_address(address):
    """As the envelope and header fields have it: the domain in A-labels and lower case."""
    local, _, domain = address.rpartition("@")
    return local + "@" + ".".join(a_label(label) for label in domain.lower().split("."))


class Dice:
    """What one seed throws."""

    def __init__(self, seed):
        self.random = random.Random(seed)

    def one_in(self, sides):
        return self.random.randrange(sides) == 0

    def below(self, sides):
        return self.random.randrange(sides)

    def pick(self, things):
        return self.random.choice(things)

    def word(self):
        if self.one_in(40):
            return self.pick(["w", "é", "字", "0", "=", "."]) * self.pick([70, 75, 76, 77, 100, 300, 899, 900, 901, 1100])
        return self.pick(WORDS[self.pick(list(WORDS) + ["ascii"] * 8)])

    def line(self, most):
        """Words of one or of many scripts, mostly with a space between."""
        words = WORDS[self.pick(list(WORDS))] if self.one_in(2) else None
        out = []
        for _ in range(self.below(most + 1)):
            out.append(self.pick(words) if words and not self.one_in(5) else self.word())
            out.append(self.pick([" "] * 12 + ["  ", "\t", " " * 32, " " * 33, "\u00a0", ""]))
        return "".join(out if self.one_in(6) else out[:-1])

    def header_line(self, limit):
        text = self.line(self.pick([0, 1, 3, 8, 8, 8, 30, 200]))
        if self.one_in(60):
            text = (text + "x é " * limit)
        return text.encode()[:limit].decode(errors="ignore")

    def body(self, html):
        """Lines with what transfer encodings and relays look at."""
        out = []
        newline = self.pick(["\n", "\n", "\r\n", "\r", None])
        for _ in range(self.pick([0, 1, 3, 10, 10, 10, 60])):
            out.append(self.pick([""] * 8 + [".", "..", "From ", " ", "\t", ">From ", "--", "-- "]))
            out.append(self.line(self.pick([0, 2, 10, 10, 40])) if not self.one_in(12) else "<p class=\"a&b\">x</p>" if html else "=20")
            out.append(self.pick([""] * 8 + [" ", "\t", "   ", "=", "\x0b", "\x0c", "\x1b[0m", "\x7f"]))
            out.append(newline or self.pick(["\n", "\r\n", "\r", "\n\n", "\r\r\n", "\n\r"]))
        text = "".join(out)
        if self.one_in(3):
            text = text.rstrip("\r\n")
        if self.one_in(25):
            text += "x" * self.pick([998, 999, 5000]) + self.pick(["", "\n"])
        if self.one_in(30):
            text += "<td>" + self.line(30).replace("{{", "") + "</td>\r\n" + ("<tr><td>0123456789 é</td></tr>\n" * self.pick([300, 1000]))
        if self.one_in(12):  # long in one script: in base64 what is between two variables is encoded ahead
            words = WORDS[self.pick(["cyrillic", "arabic", "devanagari", "thai", "cjk", "emoji"])]
            for _ in range(self.pick([1, 2, 3])):
                text += " ".join(self.pick(words) for _ in range(self.pick([60, 150, 400]))) + self.pick(["", "\n", "\r\n", "\r", "x", "xy"])
        return text

    def email(self, utf8=True):
        local = self.pick(UTF8_LOCALS) if utf8 and self.one_in(25) else self.pick(LOCALS)
        domain = ".".join(self.pick(LABELS) for _ in range(self.pick([1, 1, 1, 2]))) + "." + self.pick(["example", "test", "испытание", "EXAMPLE"])
        if len((local + "@" + a_address("x@" + domain)).encode()) > 250 or len((local + domain).encode()) > 250:
            domain = "example.net"
        return local + "@" + domain

    def mailbox(self, utf8=True):
        """As the object, the string or the bare address of a job; and what it must come to."""
        email = self.email(utf8)
        name = self.pick(NAMES) if self.one_in(3) else self.line(self.pick([1, 2, 2, 3, 12]))
        name = name.encode()[:256].decode(errors="ignore")
        how = self.below(4)
        if how == 0:
            return email
        if how == 1 and name.strip(" \t"):
            return '"%s" <%s>' % (re.sub(r'(["\\])', r"\\\1", name.encode()[:120].decode(errors="ignore")), email)
        return {"email": email, "name": name} if how == 2 or self.one_in(2) else {"email": email}

    def mailboxes(self, most, utf8=True):
        count = self.pick([1, 1, 1, 2, 3, most])
        return [self.mailbox(utf8) for _ in range(count)]

    def attachment(self):
        out = {"filename": self.pick(FILENAMES) if self.one_in(2) else (self.line(3).encode()[:255].decode(errors="ignore") or "x")}
        data = self.random.randbytes(self.pick([0, 1, 2, 3, 56, 57, 58, 114, 300, 300, 5000]))
        if self.one_in(4):
            data = self.body(False).encode()
        out["content"] = base64.b64encode(data).decode()
        if self.one_in(5) and out["content"]:
            out["content"] = "\r\n".join(re.findall(".{1,76}", out["content"]))
        if not self.one_in(4):
            out["content_type"] = self.pick(list(TYPES))
        if self.one_in(2):
            out["content_id"] = self.pick(["logo", "img1@example.org", "<angle@x>", "a.b-c_d=e+f", "c" * 200])
        if self.one_in(4):
            out["disposition"] = self.pick(["inline", "attachment"])
        return out

    def headers(self, most):
        out = {}
        for name in self.random.sample(CUSTOM_NAMES, self.below(most + 1)):
            value = self.header_line(self.pick([200, 2000, 8192]))
            out[name] = value if not self.one_in(8) else [value, self.header_line(100)]
        return out

    def content(self):
        """Fields that a job has itself or that stand in its shared content."""
        out = {"from": self.mailbox(utf8=self.one_in(10))}
        if not self.one_in(10):
            out["subject"] = self.header_line(4096)
        kinds = self.pick([["text"], ["html"], ["text", "html"], ["text", "html"]])
        for kind in kinds:
            out[kind] = self.body(kind == "html")
        if self.one_in(3):
            out["reply_to"] = self.mailboxes(3, utf8=self.one_in(10))
        if self.one_in(3):
            out["headers"] = self.headers(5)
            if self.one_in(6):
                out["headers"]["Sender"] = self.mailbox(utf8=False)
        if self.one_in(3):
            out["attachments"] = [self.attachment() for _ in range(self.pick([1, 1, 2, 5]))]
        if self.one_in(5):
            out["list_unsubscribe"] = self.pick(["https://example.org/u?t=1&x=%20", "mailto:u@example.org?subject=x", "HTTPS://example.org/" + "p" * 900])
        if self.one_in(6):
            out["list_unsubscribe"] = ["https://example.org/u", "mailto:u@example.org"]
        if self.one_in(6):
            out["list_id"] = self.pick(["news.example.org", "Our \"weekly\" news, all of it <news.example.org>", "Новости <n.example.org>", "<a.b>"])
        if self.one_in(6):
            out["feedback_id"] = "c1:t2:bulk:example"
        if self.one_in(6):
            out["precedence"] = self.pick(["bulk", "list", "none"])
        for field in (name for name in BULK_FIELDS if name in out):
            if out.get("headers"):  # not both
                out["headers"].pop(BULK_FIELDS[field], None)
        if self.one_in(6):
            out["envelope_sender"] = self.pick(["", "<>", "bounce@example.org", "b+c=d@müller.example"])
        return out

    # -- merge data --

    def value(self):
        kind = self.below(10)
        if kind < 6:
            return self.line(self.pick([0, 1, 2, 4]))
        if kind == 6:
            return self.pick(["<b>&\"'</b>", "{{other}}", "a\r\nBcc: x@evil.example", "\nX-Evil: 1\n\nbody", "}}", "\x01\x1b", "a\tb", " "])
        return self.pick([0, -7, 123456789012345, 1.5, 1e21, 0.1, True, False, None])

    def variables(self):
        """Those named v0 to v5 and o.in stay missing in none; a recipient's go over the job's."""
        return {"v%d" % i: self.value() for i in range(6)} | {
            "o": {"in": self.value(), "deep": {"er": self.value()}}, "dotted.name": self.value(),
            "list": [self.value() for _ in range(self.below(4))], "people": [{"name": self.line(2), "v1": self.value()} for _ in range(self.below(3))]}

    def tag(self):
        name = self.pick(["v0", "v1", "v2", "v3", "v4", "v5", "o.in", "o.deep.er", "dotted.name"])
        if self.one_in(200):
            name = "missing"
        return self.pick(["{{%s}}", "{{%s}}", "{{ %s }}", "{{{%s}}}", "{{&%s}}", "{{& %s }}", "{{! a comment }}{{%s}}"]) % name

    def with_tags(self, text):
        """A text with a few tags put somewhere into it; what looked like one before is not."""
        out = text.replace("{{", "{ {")
        for _ in range(self.pick([0, 1, 1, 2, 5])):
            at = self.below(len(out) + 1)
            while at < len(out) and (out[at - 1 : at] in ("{", "}") or out[at] in "{}" or out[at - 1 : at + 1] == "\r\n"):
                at += 1
            tag = self.tag()
            if "{" not in out[at - 1 : at] and not re.search(r"\{\{[^}]*$", out[:at]):
                out = out[:at] + tag + out[at:]
        return out

    def merged(self, content):
        """The content's texts become templates."""
        for name, limit in (("subject", 4096), ("text", None), ("html", None)):
            if name in content:
                content[name] = self.with_tags(content[name])
                if not limit and self.one_in(3):
                    content[name] += self.pick(BLOCKS) + self.with_tags(self.line(5))
                if limit and len(content[name].encode()) > limit:
                    content[name] = "{{v0}}"
        for name, value in content.get("headers", {}).items():
            if isinstance(value, str) and name != "Sender" and len(value) < 1000:
                content["headers"][name] = self.with_tags(value)
        if self.one_in(8):
            content["list_unsubscribe"] = "https://example.org/u/{{id}}?x={{&id}}"
        return content

    def request(self):
        """{"job": ..., "content": ... or None}: what the probe is asked."""
        kind = self.below(10)
        if kind < 4:
            job = self.content() | {"to": self.mailboxes(30)}
            if self.one_in(3):
                job["cc"] = self.mailboxes(5)
            if self.one_in(3):
                job["bcc"] = self.mailboxes(2)
                if self.one_in(3):
                    del job["to"]
            return {"job": job, "content": None}
        content = self.merged(self.content())
        content["merge_global_data"] = self.variables() | {"id": "all"}
        recipients = []
        for number in range(self.pick([1, 2, 3])):
            recipient = {"to": self.mailbox()}
            if not self.one_in(4):
                recipient["merge_data"] = {key: value for key, value in self.variables().items() if self.one_in(2)} | {"id": "r%d-%d" % (number, self.below(99))}
            if self.one_in(6):
                recipient["headers"] = {} if "list_id" in content or "precedence" in content else {name: self.with_tags(value) if isinstance(value, str) and len(value) < 1000 else value for name, value in self.headers(3).items()}
            recipients.append(recipient)
        job = {"recipients": recipients}
        if self.one_in(2):
            job["id"] = self.pick(["order-1", "ü", "x" * 128])
        if kind < 7:
            return {"job": content | job, "content": None}
        own = self.merged(self.content())
        for name in ("subject", "text", "html", "from", "reply_to"):
            if name in own and self.one_in(8):
                job[name] = own[name]
        return {"job": job | {"content": "shared"}, "content": content}


def whole(request):
    """The same job without a shared content: it has all fields itself."""
    if request["content"] is None:
        return request["job"]
    return request["content"] | {name: value for name, value in request["job"].items() if name != "content"}


# -- what must come of it --

class Refused(Exception):
    """A message that must not be made."""


def mailbox_asked(value):
    """(display name, address in A-labels)"""
    if isinstance(value, dict):
        return value.get("name", ""), a_address(value["email"])
    match = re.fullmatch(r'"((?:[^"\\]|\\.)*)" <(.*)>', value, re.S)
    if match:
        return re.sub(r"\\(.)", r"\1", match.group(1), flags=re.S), a_address(match.group(2))
    return "", a_address(value)


def mailboxes_asked(values):
    return [mailbox_asked(value) for value in (values if isinstance(values, list) else [values])]


def looked_up(scopes, name):
    """From the innermost context outwards: the whole name, or object by object along its dots. (value, is there)"""
    if name == ".":
        return scopes[-1], True
    for scope in reversed(scopes):
        if not isinstance(scope, dict):
            continue
        if name in scope:
            return scope[name], True
        head, dot, rest = name.partition(".")
        if dot and head in scope:
            return looked_up([scope[head]], rest)
    return None, False


def shown(value):
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return "%.15g" % value
    return str(value)


def escaped(text):
    for character, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;"), ("'", "&#39;")):
        text = text.replace(character, entity)
    return text


TAG = re.compile(r"\{\{(?:(?P<sign>[#^/!])[ \t]*(?P<section>[^}]*?)[ \t]*\}\}|\{[ \t]*(?P<raw>[^{}\s]+)[ \t]*\}\}\}|(?P<and>&?)[ \t]*(?P<name>[^{}\s#^/!&]+)[ \t]*\}\})")


def parsed(text):
    """mustache(5): [text or (sign, name, inner)]; a section's tag or a comment that is alone on its line takes the line with it."""
    out, stack, at = [], [], 0
    for match in TAG.finditer(text):
        begin, end = match.span()
        if match.group("sign"):
            before = re.search(r"(?:^|\n)([ \t]*)\Z", text[:begin])
            after = re.match(r"[ \t]*(?:\r?\n|\Z)", text[end:])
            if before and after:
                begin, end = before.start(1), end + after.end()
        if begin > at:
            out.append(text[at:begin])
        at = max(at, end)
        if match.group("sign") in ("#", "^"):
            stack.append((out, (match.group("sign"), match.group("section"), [])))
            out = stack[-1][1][2]
        elif match.group("sign") == "/":
            out, node = stack.pop()
            out.append(node)
        elif not match.group("sign"):
            out.append(("&" if match.group("raw") or match.group("and") else "", match.group("raw") or match.group("name"), None))
    return out + [text[at:]]


def run(nodes, scopes, html):
    out = []
    for node in nodes:
        if isinstance(node, str):
            out.append(node)
            continue
        sign, name, inner = node
        value, there = looked_up(scopes, name)
        if inner is None:
            if not there:
                raise Refused("the variable \"%s\" is missing" % name)
            out.append(escaped(shown(value)) if html and sign != "&" else shown(value))
            continue
        is_false = value is None or value is False or value == "" or value == []
        if sign == "^":
            out.append(run(inner, scopes, html) if is_false else "")
        elif not is_false:
            out.extend(run(inner, scopes + [item], html) for item in (value if isinstance(value, list) else [value]))
    return "".join(out)


def filled(text, own, common, html):
    """The variables of a text: a recipient's go over the job's."""
    return run(parsed(text), [common, own], html) if "{{" in text else text


def attachment_asked(attachment, has_html):
    name = re.split(r"[/\\](?!$)", attachment["filename"])[-1]
    kind = attachment.get("content_type", "application/octet-stream").split(";")[0].strip(" ").lower()
    inline = attachment.get("disposition", "inline" if "content_id" in attachment else "attachment") == "inline"
    identifier = attachment.get("content_id")
    if identifier and identifier.startswith("<"):
        identifier = identifier[1:-1]
    return {
        "filename": re.sub(r"[\x00-\x1f\x7f]", "_", name),
        "type": "application/octet-stream" if kind.startswith("message/") else kind,
        "parameters": TYPES.get(attachment.get("content_type"), {}),
        "bytes": base64.b64decode(attachment["content"]),
        "inline": inline,
        "content_id": identifier,
        "related": has_html and inline and identifier is not None,
    }


def asked(request, number):
    """What the message of recipient `number` says. Raises Refused when there must be none."""
    job = whole(request)
    private = "recipients" in job
    recipient = job["recipients"][number] if private else None
    merging = request["content"] is not None or "merge_global_data" in job or (private and any("merge_data" in one for one in job["recipients"]))
    own = recipient.get("merge_data", {}) if private else {}
    common = job.get("merge_global_data", {})

    def fill(text, html=False):
        return filled(text, own, common, html) if merging else text

    visible = [mailboxes_asked(job.get(field, [])) for field in ("to", "cc", "bcc")]
    out = {"from": mailboxes_asked(job["from"]), "reply_to": mailboxes_asked(job.get("reply_to", []))}
    out["to"] = [mailbox_asked(recipient["to"])] if private else visible[0]
    out["cc"] = [] if private else visible[1]
    out["recipient"] = out["to"][0][1] if private else sum(visible, [])[number][1]
    out["envelope_sender"] = job.get("envelope_sender", out["from"][0][1])
    out["envelope_sender"] = "" if out["envelope_sender"] in ("", "<>") else a_address(out["envelope_sender"])
    headers = dict(job.get("headers", {}))
    out["sender"] = mailboxes_asked(headers.pop("Sender", []))
    if private:
        replaced = {name.lower() for name in recipient.get("headers", {})}
        headers = {name: value for name, value in headers.items() if name.lower() not in replaced} | recipient.get("headers", {})
    out["headers"] = [(name, fill(one)) for name, value in headers.items() for one in (value if isinstance(value, list) else [value])]
    out["subject"] = fill(job["subject"]) if "subject" in job else None
    out["text"] = fill(job["text"]) if "text" in job else None
    out["html"] = fill(job["html"], True) if "html" in job else None
    out["attachments"] = [attachment_asked(one, out["html"] is not None) for one in job.get("attachments", [])]
    links = job.get("list_unsubscribe", [])
    out["list_unsubscribe"] = [fill(link) for link in (links if isinstance(links, list) else [links])]
    out["list_id"] = job.get("list_id")
    out["feedback_id"] = job.get("feedback_id")
    out["precedence"] = job.get("precedence", "none")
    out["utf8"] = any(not address.isascii() for _, address in sum((out[f] for f in ("from", "reply_to", "to", "cc", "sender")), [])) or not (
        out["recipient"] + out["envelope_sender"]).isascii()
    return out


def recipient_count(request):
    job = request["job"]
    if "recipients" in job:
        return len(job["recipients"])
    return sum(len(mailboxes_asked(job.get(field, []))) for field in ("to", "cc", "bcc"))


def request_bytes(job, content=None):
    """One request to the probe (tests/unit/render/messages_probe.c); texts are bytes or what becomes JSON."""
    def text(value):
        return value if isinstance(value, bytes) else b"" if value is None else json.dumps(value, ensure_ascii=False).encode()
    job, content = text(job), text(content)
    return b"%d %d %d\n" % (len(job), len(content), DATE_S) + job + content
