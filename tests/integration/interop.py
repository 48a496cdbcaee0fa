"""Real mail servers with TLS and AUTH for a testbed: Postfix, Exim, OpenSMTPD and aiosmtpd, each in a mount namespace over this machine's files.

The users of all are user/SECRET. Every server takes mail for any domain, refuses the local part `unknown`, and stores each message in a directory of files.
"""
import base64
import hashlib
import hmac
import json
import os
import re
import shutil
import subprocess
import sys
import threading

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "deploy", "lib"))  # this is a program too
from postfix_master import master_cf  # noqa: E402

CACHE = os.environ.get("BYPOST_CACHE", "/var/cache/bypost")
SERVERS = os.path.join(CACHE, "servers")
USER, SECRET, TOKEN = "user", "Geheimnis-äß", "ya29." + "t" * 900
USERS = {"Debian-exim": 64990, "opensmtpd": 64991, "opensmtpq": 64992}

# Lays the unpacked packages over the machine's files, with the users that they want; then runs the rest of the arguments there.
# All mounts are below /proc, which is a mount and can be made private: in a chroot "/" is none, and what is mounted elsewhere could reach the machine.
OVERLAY = r"""
set -e
over=/proc/fs
mount --make-rprivate / 2>/dev/null || mount --make-rprivate /proc
mount -t tmpfs none "$over"
mkdir "$over/up" "$over/work" "$over/root"
cp -a "$1" "$over/packages"; shift
mount -t overlay overlay -o "lowerdir=$over/packages:/,upperdir=$over/up,workdir=$over/work" "$over/root"
root=$over/root
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount --bind /tmp "$root/tmp"
cp "$1/passwd" "$1/group" "$root/etc/"
mkdir -p "$root/var/lib/opensmtpd/empty" "$root/var/spool/smtpd" "$root/run"
chmod 755 "$root/var/lib/opensmtpd/empty"; chmod 711 "$root/var/spool/smtpd"
shift
exec chroot "$root" "$@"
"""


def make_certificates(bed):
    """A CA (ca.pem) and a certificate for every name that a test asks for later: certificate(bed, NAME)."""
    bed.command("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", bed.path("ca.key"), "-out", bed.path("ca.pem"), "-days", "30", "-subj",
                "/CN=bypost test CA", "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign")
    return bed.path("ca.pem")


def certificate(bed, name):
    """(certificate, key) of that host name, signed by the CA of make_certificates."""
    key, request, pem = (bed.path(name + suffix) for suffix in (".key", ".csr", ".pem"))
    with open(bed.path(name + ".ext"), "w") as file:
        file.write(f"subjectAltName=DNS:{name}\nextendedKeyUsage=serverAuth\n")
    bed.command("openssl", "req", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", request, "-subj", f"/CN={name}")
    bed.command("openssl", "x509", "-req", "-in", request, "-CA", bed.path("ca.pem"), "-CAkey", bed.path("ca.key"), "-CAcreateserial", "-days", "30", "-extfile",
                bed.path(name + ".ext"), "-out", pem)
    return pem, key


def run_over_packages(bed, name, *arguments):
    """Starts a server out of the unpacked packages."""
    folder = bed.path(name)
    os.makedirs(folder, exist_ok=True)
    for file in ("passwd", "group"):
        shutil.copy("/etc/" + file, folder)
        with open(os.path.join(folder, file), "a") as out:
            for user, number in USERS.items():
                out.write(f"{user}:x:{number}:{number}::/nonexistent:/bin/false\n" if file == "passwd" else f"{user}:x:{number}:\n")
    return bed.start(name, ["unshare", "--mount", "--propagation", "unchanged", "--pid", "--fork", "--kill-child", "bash", "-c", OVERLAY, "overlay", SERVERS, folder,
                            *arguments])


def split_stored(content):
    """(header names of the trace, the rest) of a stored message: what the server put before it is cut off."""
    lines = content.split(b"\n")
    while lines and (re.match(rb"(Return-Path|Envelope-to|Delivery-date|Delivered-To|X-Original-To|Received|X-Peer|X-MailFrom|X-RcptTo):", lines[0], re.I) or
                     lines[0][:1] in (b" ", b"\t")):
        lines.pop(0)
    return b"\n".join(lines)


class Server:
    """One of them: .stored() are its messages as (envelope recipients, bytes behind the trace)."""

    mechanisms, utf8 = (), True

    def __init__(self, bed, address):
        self.bed, self.address = bed, address
        self.host = f"mx.{self.name}.test"
        self.certificate, self.key = certificate(bed, self.host)
        self.folder = bed.path(self.name)
        self.mail = os.path.join(self.folder, "mail")
        os.makedirs(self.mail)

    def files(self):
        return [os.path.join(folder, name) for folder, _, names in os.walk(self.mail) for name in names if not folder.endswith("/tmp") and name[0] != "."]

    def stored(self):
        messages = []
        for path in self.files():
            with open(path, "rb") as file:
                content = file.read()
            found = re.search(rb"^(?:Envelope-to|X-Original-To|Delivered-To|X-RcptTo): *(.*)$", content, re.M | re.I)
            messages.append(([r.strip().strip("<>") for r in found.group(1).decode().split(",")] if found else [], split_stored(content)))
        return messages


class Exim(Server):
    name, mechanisms, submission, implicit = "exim", ("plain", "login", "cram-md5"), 587, 465

    def start(self):
        for part in ("spool", "log"):
            os.makedirs(os.path.join(self.folder, part))
        for folder in (self.folder, self.mail, os.path.join(self.folder, "spool"), os.path.join(self.folder, "log")):
            os.chown(folder, USERS["Debian-exim"], USERS["Debian-exim"])
        for file in (self.certificate, self.key):
            os.chown(file, USERS["Debian-exim"], USERS["Debian-exim"])
        config = os.path.join(self.folder, "exim.conf")
        with open(config, "w") as file:
            file.write(f"""primary_hostname = {self.host}
spool_directory = {self.folder}/spool
log_file_path = {self.folder}/log/%slog
local_interfaces = {self.address}
daemon_smtp_ports = 25 : 587 : 465
tls_on_connect_ports = 465
tls_certificate = {self.certificate}
tls_privatekey = {self.key}
tls_advertise_hosts = *
chunking_advertise_hosts = *
pipelining_advertise_hosts = *
dsn_advertise_hosts = *
smtputf8_advertise_hosts = *
auth_advertise_hosts = ${{if eq{{$tls_in_cipher}}{{}}{{}}{{*}}}}
acl_smtp_rcpt = check_rcpt
acl_smtp_data = accept
message_size_limit = 20M
smtp_accept_max = 200
allow_utf8_domains = true
keep_environment =
begin acl
check_rcpt:
  deny local_parts = unknown
       message = 5.1.1 no such user
  deny condition = ${{if eq{{$interface_port}}{{587}}}}
       !authenticated = *
       message = 5.7.0 log in first
  accept
begin routers
all:
  driver = accept
  transport = files
begin transports
files:
  driver = appendfile
  directory = {self.mail}
  create_file = anywhere
  maildir_format
  user = Debian-exim
  envelope_to_add
  return_path_add
begin retry
* * F,1h,1m
begin authenticators
plain:
  driver = plaintext
  public_name = PLAIN
  server_condition = ${{if and{{{{eq{{$auth2}}{{{USER}}}}}{{eq{{$auth3}}{{{SECRET}}}}}}}}}
  server_set_id = $auth2
login:
  driver = plaintext
  public_name = LOGIN
  server_prompts = <| Username: | Password:
  server_condition = ${{if and{{{{eq{{$auth1}}{{{USER}}}}}{{eq{{$auth2}}{{{SECRET}}}}}}}}}
  server_set_id = $auth1
cram:
  driver = cram_md5
  public_name = CRAM-MD5
  server_secret = ${{if eq{{$auth1}}{{{USER}}}{{{SECRET}}}fail}}
  server_set_id = $auth1
""")
        self.process = run_over_packages(self.bed, self.name, "/usr/sbin/exim4", "-bdf", "-q5s", "-C", config, "-oP", os.path.join(self.folder, "exim.pid"))
        self.bed._wait_for_port(self.address, 587)


class OpenSmtpd(Server):
    """Debian 12's OpenSMTPD cannot do TLS with OpenSSL 3 (its privilege-separated keys fail with any client); where it can is asked of openssl s_client."""

    name, mechanisms, submission, implicit, utf8 = "opensmtpd", ("plain", "login"), 587, 465, False

    def start(self):
        os.chmod(self.mail, 0o777)
        for file in (self.certificate, self.key):
            os.chown(file, 0, 0)
            os.chmod(file, 0o600)
        hashed = self.bed.command("openssl", "passwd", "-6", SECRET).strip()
        with open(os.path.join(self.folder, "users"), "w") as file:
            file.write(f"{USER} {hashed}\n")
        config = os.path.join(self.folder, "smtpd.conf")
        with open(config, "w") as file:
            file.write(f"""pki {self.host} cert "{self.certificate}"
pki {self.host} key "{self.key}"
table users file:{self.folder}/users
table unknown {{ unknown }}
listen on {self.address} port 25 tls pki {self.host} hostname {self.host}
listen on {self.address} port 465 smtps pki {self.host} auth <users> hostname {self.host}
listen on {self.address} port 587 tls-require pki {self.host} auth <users> hostname {self.host}
action "store" maildir "{self.mail}" virtual {{ "@" = nobody }}
match from any for rcpt-to regex "^unknown@" reject
match auth from any for any action "store"
match from any for any action "store"
""")
        self.process = run_over_packages(self.bed, self.name, "/usr/sbin/smtpd", "-d", "-f", config)
        self.bed._wait_for_port(self.address, 25)

    def has_tls(self):
        done = subprocess.run(self.bed.inside("openssl", "s_client", "-starttls", "smtp", "-connect", f"{self.address}:25"), input=b"QUIT\r\n",
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=10)
        return done.returncode == 0


class AuthService(threading.Thread):
    """Dovecot's authentication protocol, of which Postfix is a client: it decides who is who, Postfix speaks SMTP."""

    MECHANISMS = ("PLAIN", "LOGIN", "CRAM-MD5", "XOAUTH2", "OAUTHBEARER")

    def __init__(self, path):
        import socket

        super().__init__(daemon=True)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        os.chmod(path, 0o666)
        self.listener.listen(64)
        self.seen = []

    def run(self):
        while True:
            connection, _ = self.listener.accept()
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        lines = "".join(f"MECH\t{name}\tplaintext\n" for name in self.MECHANISMS)
        connection.sendall(f"VERSION\t1\t1\n{lines}SPID\t1\nCUID\t1\nCOOKIE\t{'0' * 32}\nDONE\n".encode())
        file, waiting = connection.makefile("rb"), {}
        for line in file:
            words = line.decode().rstrip("\n").split("\t")
            if words[0] == "AUTH":
                response = next((w[5:] for w in words if w.startswith("resp=")), None)
                waiting[words[1]] = {"mechanism": words[2], "said": []}
                self.step(connection, words[1], waiting[words[1]], None if response is None else base64.b64decode(response))
            elif words[0] == "CONT":
                self.step(connection, words[1], waiting[words[1]], base64.b64decode(words[2]) if len(words) > 2 else b"")

    def step(self, connection, number, state, said):
        mechanism = state["mechanism"]
        if said is not None:
            state["said"].append(said)
        challenge = {"LOGIN": [b"Username:", b"Password:"], "CRAM-MD5": [b"<12.34@mx.postfix.test>"]}.get(mechanism, [b""])
        if len(state["said"]) < len(challenge):
            connection.sendall(f"CONT\t{number}\t{base64.b64encode(challenge[len(state['said'])]).decode()}\n".encode())
            return
        good = self.judge(mechanism, state["said"])
        if not good and mechanism in ("XOAUTH2", "OAUTHBEARER") and len(state["said"]) == 1:
            refusal = base64.b64encode(b'{"status":"401"}').decode()
            connection.sendall(f"CONT\t{number}\t{refusal}\n".encode())
            return
        self.seen.append((mechanism, good))
        connection.sendall((f"OK\t{number}\tuser={USER}\n" if good else f"FAIL\t{number}\tuser={USER}\n").encode())

    def judge(self, mechanism, said):
        secret = SECRET.encode()
        if mechanism == "PLAIN":
            return said[0] == b"\0" + USER.encode() + b"\0" + secret
        if mechanism == "LOGIN":
            return said == [USER.encode(), secret]
        if mechanism == "CRAM-MD5":
            return said[0] == USER.encode() + b" " + hmac.new(secret, b"<12.34@mx.postfix.test>", hashlib.md5).hexdigest().encode()
        if mechanism == "XOAUTH2":
            return said[0] == f"user={USER}\1auth=Bearer {TOKEN}\1\1".encode()
        return said[0].startswith(f"n,a={USER},\1".encode()) and f"\1auth=Bearer {TOKEN}\1".encode() in said[0] and said[0].endswith(b"\1\1")


class Postfix(Server):
    name, mechanisms, submission, implicit = "postfix", ("plain", "login", "cram-md5", "xoauth2", "oauthbearer"), 587, 465
    LOG = f"/var/log/postfix-test-{os.getpid()}.log"  # Postfix writes under /var only

    def start(self):
        for part in ("etc", "spool", "data"):
            os.makedirs(os.path.join(self.folder, part))
        shutil.chown(os.path.join(self.folder, "data"), "postfix")
        shutil.chown(self.mail, "nobody")
        self.auth = AuthService(os.path.join(self.folder, "auth"))
        self.auth.start()
        uid, gid = (subprocess.check_output(["id", which, "nobody"], text=True).strip() for which in ("-u", "-g"))
        with open(os.path.join(self.folder, "etc", "main.cf"), "w") as file:
            file.write(f"""compatibility_level = 3.6
queue_directory = {self.folder}/spool
data_directory = {self.folder}/data
mail_owner = postfix
setgid_group = postdrop
myhostname = {self.host}
mydestination =
inet_interfaces = {self.address}
inet_protocols = ipv4
maillog_file = {self.LOG}
virtual_mailbox_domains = static:all
virtual_mailbox_base = {self.mail}
virtual_mailbox_maps = static:all/
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{gid}
virtual_minimum_uid = 1
smtpd_recipient_restrictions = check_recipient_access inline:{{ {{unknown@=550 5.1.1 no such user}} }}, reject_unauth_destination
smtpd_relay_restrictions = reject_unauth_destination
smtpd_client_connection_count_limit = 0
smtpd_client_connection_rate_limit = 0
smtpd_peername_lookup = no
smtpd_tls_chain_files = {self.key}, {self.certificate}
smtpd_tls_security_level = may
smtpd_tls_auth_only = yes
smtpd_sasl_type = dovecot
smtpd_sasl_path = {self.folder}/auth
smtpd_sasl_security_options = noanonymous
smtputf8_enable = yes
alias_maps =
""")
        with open(os.path.join(self.folder, "etc", "master.cf"), "w") as file:
            encrypted = "-o smtpd_sasl_auth_enable=yes -o smtpd_client_restrictions=permit_sasl_authenticated,reject"
            file.write(master_cf("smtp inet n - n - - smtpd", f"submission inet n - n - - smtpd -o smtpd_tls_security_level=encrypt {encrypted}",
                                 f"submissions inet n - n - - smtpd -o smtpd_tls_wrappermode=yes {encrypted}", "virtual unix - n n - - virtual"))
        self.process = self.bed.start(self.name, ["/usr/sbin/postfix", "-c", os.path.join(self.folder, "etc"), "start-fg"])
        self.bed._wait_for_port(self.address, 587)

    def stop(self):
        subprocess.run(["/usr/sbin/postfix", "-c", os.path.join(self.folder, "etc"), "stop"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if os.path.exists(self.LOG):
            os.unlink(self.LOG)


class Aiosmtpd(Server):
    name, mechanisms, submission, implicit = "aiosmtpd", ("plain", "login"), 587, 465

    def start(self):
        os.chmod(self.key, 0o644)
        self.process = self.bed.start(self.name, ["/usr/bin/python3", "-B", os.path.abspath(__file__), json.dumps(
            {"address": self.address, "certificate": self.certificate, "key": self.key, "mail": self.mail, "name": self.host})])
        self.bed._wait_for_port(self.address, 587)


NPM_PROGRAM = r"""
const { SMTPServer } = require("smtp-server"), fs = require("fs"), path = require("path");
const set = JSON.parse(process.argv[2]);
let number = 0;
const make = (port, more) => new SMTPServer({
  name: set.name, key: fs.readFileSync(set.key), cert: fs.readFileSync(set.certificate), disableReverseLookup: true, size: 20 << 20, ...more,
  onRcptTo: (to, session, done) => done(to.address.startsWith("unknown@") ? Object.assign(new Error("5.1.1 no such user"), { responseCode: 550 }) : null),
  onAuth: (auth, session, done) => {
    const good = auth.username === set.user && (auth.method === "XOAUTH2" ? auth.accessToken === set.token
      : auth.method === "CRAM-MD5" ? auth.validatePassword(set.secret) : auth.password === set.secret);
    done(good ? null : new Error("5.7.8 no"), good ? { user: auth.username } : undefined);
  },
  onData: (stream, session, done) => {
    const parts = [];
    stream.on("data", (part) => parts.push(part));
    stream.on("end", () => {
      const to = session.envelope.rcptTo.map((r) => r.address).join(", "), name = path.join(set.mail, String(++number));
      fs.writeFileSync(name + "~", Buffer.concat([Buffer.from("X-RcptTo: " + to + "\n"), Buffer.from(Buffer.concat(parts).toString("binary").replace(/\r\n/g, "\n"), "binary")]));
      fs.renameSync(name + "~", name);
      done();
    });
  },
}).listen(port, set.address);
const methods = ["PLAIN", "LOGIN", "CRAM-MD5", "XOAUTH2"];
make(25, { authOptional: true, disabledCommands: ["AUTH"] });
make(587, { authMethods: methods });
make(465, { authMethods: methods, secure: true });
"""


class NpmServer(Server):
    """npm's smtp-server (that of Nodemailer), fetched by npm into the testbed's folder."""

    name, mechanisms, submission, implicit = "npm", ("plain", "login", "cram-md5", "xoauth2"), 587, 465

    def start(self):
        self.bed.command("npm", "install", "--no-audit", "--no-fund", "smtp-server", cwd=self.folder)
        with open(os.path.join(self.folder, "server.js"), "w") as file:
            file.write(NPM_PROGRAM)
        settings = {"address": self.address, "certificate": self.certificate, "key": self.key, "mail": self.mail, "name": self.host, "user": USER, "secret": SECRET, "token": TOKEN}
        self.process = self.bed.start(self.name, ["node", os.path.join(self.folder, "server.js"), json.dumps(settings)])
        self.bed._wait_for_port(self.address, 587)

    def files(self):
        return [path for path in super().files() if os.path.basename(path).isdigit()] if os.path.isdir(self.mail) else []


def serve_aiosmtpd(settings):
    """The program of Aiosmtpd: port 25 with STARTTLS, 587 with STARTTLS and AUTH, 465 with TLS and AUTH."""
    import asyncio
    import ssl

    from aiosmtpd.smtp import SMTP, AuthResult

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(settings["certificate"], settings["key"])
    number = [0]

    class Handler:
        async def handle_RCPT(self, server, session, envelope, address, options):
            if address.startswith("unknown@"):
                return "550 5.1.1 no such user"
            envelope.rcpt_tos.append(address)
            return "250 2.1.5 Ok"

        async def handle_DATA(self, server, session, envelope):
            number[0] += 1
            with open(os.path.join(settings["mail"], f".{number[0]}"), "wb") as file:
                file.write(b"X-RcptTo: " + ", ".join(envelope.rcpt_tos).encode() + b"\n" + envelope.content.replace(b"\r\n", b"\n"))
            os.rename(file.name, os.path.join(settings["mail"], str(number[0])))
            return "250 2.0.0 Ok"

    def authenticate(server, session, envelope, mechanism, data):
        return AuthResult(success=data.login == USER.encode() and data.password == SECRET.encode())

    async def main():
        loop = asyncio.get_running_loop()

        def make(**more):
            return lambda: SMTP(Handler(), hostname=settings["name"], enable_SMTPUTF8=True, loop=loop, **more)

        log_in = {"authenticator": authenticate, "auth_required": True}
        servers = [await loop.create_server(make(tls_context=context), settings["address"], 25),
                   await loop.create_server(make(tls_context=context, require_starttls=True, **log_in), settings["address"], 587),
                   await loop.create_server(make(auth_require_tls=False, **log_in), settings["address"], 465, ssl=context)]
        await asyncio.gather(*(server.serve_forever() for server in servers))

    asyncio.run(main())


if __name__ == "__main__":
    serve_aiosmtpd(json.loads(sys.argv[1]))
