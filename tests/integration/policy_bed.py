"""What test_policy needs beside a testbed: a test authority, a zone signed by knot, and an HTTPS server for MTA-STS policies and reports."""
import datetime
import hashlib
import http.server
import json
import os
import re
import ssl
import subprocess
import sys
import threading

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

KNOTD, KEYMGR, KNOTC = "/usr/sbin/knotd", "/usr/sbin/keymgr", "/usr/sbin/knotc"


class Authority:
    """A certificate authority; its root is in DIRECTORY/ca.pem, unless it is one that nobody trusts."""

    def __init__(self, directory, name="ca"):
        self.directory = directory
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"bypost test authority {name}")])
        self.certificate = self._sign(self.subject, self.key.public_key(), [], True)
        self.path = os.path.join(directory, name + ".pem")
        with open(self.path, "wb") as file:
            file.write(self.certificate.public_bytes(serialization.Encoding.PEM))

    def _sign(self, subject, public_key, names, authority, days=(-1, 30)):
        now = datetime.datetime.utcnow()
        builder = (x509.CertificateBuilder().subject_name(subject).issuer_name(self.subject).public_key(public_key)
                   .serial_number(x509.random_serial_number()).not_valid_before(now + datetime.timedelta(days=days[0]))
                   .not_valid_after(now + datetime.timedelta(days=days[1]))
                   .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True))
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        return builder.sign(self.key, hashes.SHA256())

    def issue(self, name, names, days=(-1, 30)):
        """(path of a PEM with key and certificate, SHA-256 of its public key in hexadecimal: TLSA 3 1 1)."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._sign(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])]), key.public_key(), names, False, days)
        path = os.path.join(self.directory, name + ".pem")
        with open(path, "wb") as file:
            file.write(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
            file.write(certificate.public_bytes(serialization.Encoding.PEM))
        spki = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        return path, hashlib.sha256(spki).hexdigest()


class Zones:
    """knotd: the zones that `zones` names, those in `signed` signed with keys of their own; `anchor` has the DNSKEY of test."""

    def __init__(self, bed, zones, signed, address="127.0.0.1@53"):
        self.bed, self.zones, self.directory = bed, dict(zones), bed.path("knot")
        os.makedirs(os.path.join(self.directory, "db"))
        self.config = os.path.join(self.directory, "knot.conf")
        self.serial = 1
        for zone in self.zones:
            self._write(zone)
        lines = ["server:", f"  rundir: {self.directory}", f"  listen: {address}", "database:", f"  storage: {self.directory}/db",
                 "log:", "  - target: stderr", "    any: warning",
                 "policy:", "  - id: quick", "    algorithm: ecdsap256sha256", "    single-type-signing: on", "    nsec3: off",
                 "template:", "  - id: default", f"    storage: {self.directory}", "    zonefile-sync: -1", "    zonefile-load: difference-no-serial",
                 "    journal-content: all", "zone:"]
        for zone in self.zones:
            lines += [f"  - domain: {zone}", f"    file: {zone}zone"]
            if zone in signed:
                lines += ["    dnssec-signing: on", "    dnssec-policy: quick"]
        with open(self.config, "w") as file:
            file.write("\n".join(lines) + "\n")
        bed.start("knot", [KNOTD, "-c", self.config])
        from testbed import wait_for
        self.anchor = bed.path("anchor.key")
        key = wait_for(self._key, 15, "knot's keys")
        with open(self.anchor, "w") as file:
            file.write(key)

    def _key(self):
        result = subprocess.run([KEYMGR, "-c", self.config, "test.", "dnskey"], capture_output=True, text=True)
        key = [line for line in result.stdout.splitlines() if " DNSKEY " in line]
        return "\n".join(key) + "\n" if key else None

    def _write(self, zone):
        with open(os.path.join(self.directory, zone + "zone"), "w") as file:
            file.write(f"{zone} 60 IN SOA ns.test. admin.test. {self.serial} 3600 600 86400 1\n{zone} 60 IN NS ns.test.\n" + self.zones[zone])

    def change(self, zone, text):
        """Serves another content of a zone."""
        self.serial += 1
        self.zones[zone] = text
        self._write(zone)
        subprocess.run(self.bed.inside(KNOTC, "-c", self.config, "-b", "zone-reload", zone), check=True, stdout=subprocess.DEVNULL)


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def _note(self, body=b""):
        with open(os.path.join(self.server.directory, "requests"), "a") as file:
            file.write(json.dumps({"host": self.headers.get("Host"), "method": self.command, "path": self.path,
                                   "type": self.headers.get("Content-Type"), "body": body.hex()}) + "\n")

    def _answer(self, status, body=b"", kind="text/plain", **headers):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self._note()
        host = (self.headers.get("Host") or "").split(":")[0]
        path = os.path.join(self.server.directory, host)
        if not re.fullmatch(r"[a-z0-9.-]+", host) or not os.path.exists(path) or self.path != "/.well-known/mta-sts.txt":
            return self._answer(404, b"not here")
        with open(path, "rb") as file:
            text = file.read()
        if text.startswith(b"redirect "):
            return self._answer(302, Location=text[9:].strip().decode())
        return self._answer(200, text, "text/html" if text.startswith(b"html ") else "text/plain; charset=utf-8")

    def do_POST(self):
        self._note(self.rfile.read(int(self.headers.get("Content-Length", "0"))))
        self._answer(200, b"")


def serve(directory, *listeners):
    """ADDRESS=PEM...: one HTTPS server each on port 443; policies are the files of DIRECTORY, by host."""
    servers = []
    for listener in listeners:
        address, pem = listener.split("=")
        server = http.server.ThreadingHTTPServer((address, 443), Handler)
        server.directory = directory
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
    threading.Event().wait()


def serve_mail(record, *listeners):
    """ADDRESS=PEM, or ADDRESS= for one without TLS: an SMTP server each on port 25; RECORD gets a line of JSON for each message."""
    import asyncio
    from aiosmtpd.smtp import SMTP

    class Keeper:
        def __init__(self, address):
            self.address = address

        async def handle_DATA(self, server, session, envelope):
            with open(record, "a") as file:
                file.write(json.dumps({"server": self.address, "to": envelope.rcpt_tos, "tls": session.ssl["cipher"][1] if session.ssl else None,
                                       "message": envelope.content.decode("latin-1")}) + "\n")
            return "250 2.0.0 Ok"

    async def run():
        loop = asyncio.get_running_loop()
        for listener in listeners:
            address, pem = listener.split("=")
            context = None
            if pem:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(pem)
            await loop.create_server(lambda a=address, c=context: SMTP(Keeper(a), hostname="receiver.test", tls_context=c, loop=loop), address, 25)
        await asyncio.Event().wait()

    asyncio.run(run())


if __name__ == "__main__":
    {"web": serve, "mail": serve_mail}[sys.argv[1]](*sys.argv[2:])
