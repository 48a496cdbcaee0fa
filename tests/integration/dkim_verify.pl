#!/usr/bin/perl
# Verifies messages with Mail::DKIM for test_dkim: dkim_verify.pl KEYS. KEYS has "NAME RECORD" lines, the public keys. Standard input: a line with
# a length, and so many bytes of message, again and again. For each one line: "SELECTOR=RESULT ..." of its signatures.
use strict;
use warnings;
use Mail::DKIM::DNS;
use Mail::DKIM::Verifier;
use Net::DNS::RR;

my %records;
open(my $keys, '<', $ARGV[0]) or die "$ARGV[0]: $!\n";
while (<$keys>) {
    my ($name, $text) = /^(\S+)\s+(.*)$/ or next;
    $records{$name} = Net::DNS::RR->new(name => $name, type => 'TXT', txtdata => [ $text =~ /(.{1,200})/g ]);
}
close($keys);
{
    no warnings 'redefine';
    *Mail::DKIM::DNS::query = sub { $@ = 'NXDOMAIN'; return exists $records{ $_[0] } ? ($records{ $_[0] }) : (); };
}

binmode(STDIN);
$| = 1;
while (defined(my $length = <STDIN>)) {
    my $message = '';
    read(STDIN, $message, $length) == $length or die "half a message\n";
    my $dkim = Mail::DKIM::Verifier->new();
    eval { $dkim->PRINT($message); $dkim->CLOSE(); 1 } or print "ERROR=$@" =~ s/\s+/_/gr;
    print join(' ', map { $_->selector . '=' . $_->result } $dkim->signatures), "\n";
}
