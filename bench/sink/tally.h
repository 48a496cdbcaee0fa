/* tally.h: what a sink counts. A worker's own; others see the copy that it publishes. */
#ifndef BENCH_SINK_TALLY_H
#define BENCH_SINK_TALLY_H

#include <stdint.h>

#define SINK_TALLY(X)                                                                                                                      \
    X(connections, "accepted")                                                                                                             \
    X(connections_closed, "ended in order: QUIT, or the client's FIN")                                                                     \
    X(connections_lost, "ended by a reset, a timeout or the script")                                                                       \
    X(connections_refused, "no session was free, or the script dropped them at connect")                                                   \
    X(tls_sessions, "TLS handshakes that succeeded, of STARTTLS and of TLS from the first byte")                                           \
    X(tls_sessions_12, "of them TLS 1.2")                                                                                                  \
    X(tls_sessions_13, "of them TLS 1.3")                                                                                                  \
    X(tls_resumed, "of them resumed")                                                                                                      \
    X(tls_failed, "handshakes that failed")                                                                                                \
    X(tls_injected, "STARTTLS refused because plaintext lay behind it (RFC 3207 section 6)")                                               \
    X(auth_ok, "AUTH answered 235")                                                                                                        \
    X(auth_failed, "AUTH refused, cancelled, or ended by the script")                                                                      \
    X(commands, "command lines")                                                                                                           \
    X(transactions, "MAIL accepted")                                                                                                       \
    X(transactions_several, "of them that got a second recipient")                                                                         \
    X(transactions_require_tls, "of them with REQUIRETLS (RFC 8689)")                                                                      \
    X(recipients, "RCPT accepted")                                                                                                         \
    X(recipients_notify, "of them with NOTIFY (RFC 3461)")                                                                                 \
    X(recipients_refused, "RCPT answered 5xx by the script")                                                                               \
    X(recipients_deferred, "RCPT answered 4xx by the script")                                                                              \
    X(messages, "messages that came whole")                                                                                                \
    X(messages_accepted, "of them answered 250")                                                                                           \
    X(messages_refused, "of them answered 5xx")                                                                                            \
    X(messages_deferred, "of them answered 4xx")                                                                                           \
    X(messages_unanswered, "of them dropped or stalled by the script: kept, and their sender is uncertain")                                \
    X(messages_aborted, "connection ended, or RSET, within a message")                                                                     \
    X(messages_unique, "kept, for the first time")                                                                                         \
    X(messages_repeated, "kept, and the same Message-ID was kept before")                                                                  \
    X(messages_without_id, "kept, without a Message-ID")                                                                                   \
    X(messages_untold, "kept, and the table of Message-IDs was full: raise --messages")                                                    \
    X(message_bytes, "of whole messages, unstuffed")                                                                                       \
    X(digests_good, "X-Body-Digest agrees with the body")                                                                                  \
    X(digests_bad, "it does not")                                                                                                          \
    X(digests_missing, "no such header, or none that can be read")                                                                         \
    X(chunks, "BDAT")                                                                                                                      \
    X(errors_syntax, "commands that cannot be read")                                                                                       \
    X(errors_unknown, "unknown commands")                                                                                                  \
    X(errors_sequence, "commands out of order")                                                                                            \
    X(errors_parameter, "parameters that were not offered")                                                                                \
    X(errors_command_bare_lf, "commands that end in a bare LF")                                                                            \
    X(errors_command_overlong, "command lines over 1,024 bytes")                                                                           \
    X(errors_pipelining, "bytes behind a command that must wait for its reply (RFC 2920)")                                                 \
    X(errors_bare_lf, "messages with a bare LF; refused")                                                                                  \
    X(errors_bare_cr, "messages with a bare CR; refused")                                                                                  \
    X(errors_overlong, "messages with a line over 998 bytes")                                                                              \
    X(errors_smuggled, "messages with a dot between line ends that are not both CRLF; refused")                                            \
    X(errors_unstuffed_dot, "messages with a single dot at the beginning of a longer line")                                                \
    X(errors_eight_bit, "messages with 8-bit bytes and no BODY=8BITMIME or SMTPUTF8")                                                      \
    X(errors_size, "messages over --size, or over their own SIZE=")                                                                        \
    X(no_transaction_free, "MAIL answered 452: raise --transactions")                                                                      \
    X(no_line_free, "connections reset because no line buffer was free: raise --transactions")                                             \
    X(replies_lost, "connections reset because TCP had no room for a reply")

struct tally {
#define X(name, help) uint64_t name;
    SINK_TALLY(X)
#undef X
};

#endif
