"""A private Postfix in a testbed's namespace, and what it stored."""
import os
import subprocess

from postfix_master import PICKUP, master_cf  # beside testbed.py

LOG = f"/var/log/postfix-test-{os.getpid()}.log"  # Postfix writes under /var only


def start(bed, address):
    """Delivers postfix.test into the Maildir that is returned; address is of either family."""
    base = bed.path("postfix")
    for name in ("etc", "spool", "data", "mail"):
        os.makedirs(os.path.join(base, name))
    subprocess.run(["chown", "postfix:", os.path.join(base, "data")], check=True)
    subprocess.run(["chown", "nobody:", os.path.join(base, "mail")], check=True)
    uid, gid = subprocess.check_output(["id", "-u", "nobody"], text=True).strip(), subprocess.check_output(["id", "-g", "nobody"], text=True).strip()
    with open(os.path.join(base, "etc", "main.cf"), "w") as file:
        file.write(
            f"""compatibility_level = 3.6
queue_directory = {base}/spool
data_directory = {base}/data
mail_owner = postfix
setgid_group = postdrop
myhostname = mx.postfix.test
mydestination =
inet_interfaces = {address}
inet_protocols = {"ipv6" if ":" in address else "ipv4"}
maillog_file = {LOG}
virtual_mailbox_domains = postfix.test
virtual_mailbox_base = {base}/mail
virtual_mailbox_maps = static:all/
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{gid}
virtual_minimum_uid = 1
smtpd_recipient_restrictions = reject_unauth_destination
smtpd_client_connection_count_limit = 0
smtpd_client_connection_rate_limit = 0
smtpd_peername_lookup = no
alias_maps =
"""
        )
    with open(os.path.join(base, "etc", "master.cf"), "w") as file:
        file.write(master_cf("smtp inet n - n - - smtpd", PICKUP, "virtual unix - n n - - virtual"))
    bed.start("postfix", ["/usr/sbin/postfix", "-c", os.path.join(base, "etc"), "start-fg"])
    bed._wait_for_port(address, 25)
    return os.path.join(base, "mail", "all", "new")


def stored(maildir):
    """The messages as received, without the trace fields that Postfix put before them."""
    messages = []
    for name in sorted(os.listdir(maildir)) if os.path.isdir(maildir) else []:
        with open(os.path.join(maildir, name), "rb") as file:
            lines = file.read().split(b"\n")
        recipient = None
        while lines and (lines[0].startswith((b"Return-Path:", b"X-Original-To:", b"Delivered-To:", b"Received:")) or lines[0][:1] in (b" ", b"\t")):
            if lines[0].startswith(b"X-Original-To:"):
                recipient = lines[0].split(b":", 1)[1].strip().decode()
            lines.pop(0)
        messages.append((recipient, b"\n".join(lines)))
    return messages


def stop(bed):
    subprocess.run(["/usr/sbin/postfix", "-c", bed.path("postfix", "etc"), "stop"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    if os.path.exists(LOG):
        os.unlink(LOG)
