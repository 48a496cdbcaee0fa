/* test_job.c: what a job may hold and the sentence that each fault earns (QUEUE.md, the job), in JSON and in MessagePack. */
#include "control/fetch/fetch.h"

#include "tests/unit/fetch/msgpack_write.h"

#include <inttypes.h>
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { MUTATIONS = 100000 };

static const struct config config = {.max_message_bytes = 1 << 20, .max_recipients_per_job = 500};

/* clang-format off */
static const struct {
    const char *job, *reason;
} bad_jobs[] = {
    {"{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"text\":\"t\"",
     "The job is not valid JSON: premature EOF (line 1, column 46)."},
    {"{\"from\":\"a@b.test\",\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"text\":\"t\"}",
     "The key from stands twice in one object."},
    {"[1]",
     "The job begins with byte 0x5b: it must be a JSON object or a MessagePack map."},
    {"{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"text\":\"t\",\"subjct\":\"x\"}",
     "subjct: A job has no such field; did you mean subject?"},
    {"{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"text\":\"t\",\"zzz\":\"x\"}",
     "zzz: A job has no such field."},
    {"{\"to\":\"x@y.test\",\"text\":\"t\"}",
     "The job has no from."},
    {"{\"from\":\"a@b.test\",\"text\":\"t\"}",
     "The job has no recipient: give to, cc, bcc or recipients."},
    {"{\"from\":\"a@b.test\",\"to\":[],\"text\":\"t\"}",
     "The job has no recipient: give to, cc, bcc or recipients."},
    {"{\"from\":\"a@b.test\",\"recipients\":[],\"text\":\"t\"}",
     "The job has no recipient: give to, cc, bcc or recipients."},
    {"{\"from\":\"a@b.test\",\"to\":\"x@y.test\"}",
     "The job has no content: give text, html, raw or the name of a shared content."},
    {"{\"from\":\"a@b.test\",\"to\":\"bob\",\"text\":\"t\"}",
     "to: \"bob\" has no @."},
    {"{\"from\":\"a@b.test\",\"to\":[\"x@y.test\",\"bob@\"],\"text\":\"t\"}",
     "to[1]: \"bob@\" has no domain after the @."},
    {"{\"from\":\"a@b.test\",\"to\":\"@y.test\",\"text\":\"t\"}",
     "to: \"@y.test\" has nothing before the @."},
    {"{\"from\":\"a@b.test\",\"to\":\"a@b@y.test\",\"text\":\"t\"}",
     "to: \"a@b@y.test\" has more than one @."},
    {"{\"from\":\"a@b.test\",\"to\":\"a..b@y.test\",\"text\":\"t\"}",
     "to: \"a..b@y.test\" has a dot at the beginning or end of its local part, or two in a row."},
    {"{\"from\":\"a@b.test\",\"to\":\"a b@y.test\",\"text\":\"t\"}",
     "to: \"a b@y.test\" has a character before the @ that must be quoted."},
    {"{\"from\":\"a@b.test\",\"to\":\"a@y.test.\",\"text\":\"t\"}",
     "to: \"a@y.test.\" has a domain that ends with a dot."},
    {"{\"from\":\"a@b.test\",\"to\":\"a@-y.test\",\"text\":\"t\"}",
     "to: \"a@-y.test\" has a domain label that begins or ends with a hyphen."},
    {"{\"from\":\"a@b.test\",\"to\":\"a@y_z.test\",\"text\":\"t\"}",
     "to: \"a@y_z.test\" has a domain with a character that domains cannot hold."},
    {"{\"from\":\"a@b.test\",\"to\":\"a@[300.1.1.1]\",\"text\":\"t\"}",
     "to: \"a@[300.1.1.1]\" has an address literal that is neither [192.0.2.1] nor [IPv6:2001:db8::1]."},
    {"{\"from\":\"a@b.test\",\"to\":\"\\\"a b@y.test\",\"text\":\"t\"}",
     "to: \"\"a b@y.test\" has a quoted local part without its closing quote."},
    {"{\"from\":\"a@b.test\",\"to\":\"a@x.test, b@x.test\",\"text\":\"t\"}",
     "to: \"a@x.test, b@x.test\": several addresses go in an array, one string each."},
    {"{\"from\":\"a@b.test\",\"to\":\"Doe, John <a@x.test>\",\"text\":\"t\"}",
     "to: \"Doe, John\": a name with @ , ; < > goes in quotes, and several addresses go in an array."},
    {"{\"from\":\"a@b.test\",\"to\":\"Bob\\nBcc: e@v.test <a@x.test>\",\"text\":\"t\"}",
     "to: \"Bob?Bcc: e@v.test <a@x.test>\" holds a line break or another control character."},
    {"{\"from\":\"a@b.test\",\"to\":{\"email\":\"a@x.test\",\"nam\":\"x\"},\"text\":\"t\"}",
     "to.nam: An address has only email and name; did you mean name?"},
    {"{\"from\":\"a@b.test\",\"to\":{\"name\":\"x\"},\"text\":\"t\"}",
     "to: The address has no email."},
    {"{\"from\":\"a@b.test\",\"to\":5,\"text\":\"t\"}",
     "to: An address must be a string or an object {email, name}, not a number."},
    {"{\"from\":[\"a@b.test\"],\"to\":\"x@y.test\",\"text\":\"t\"}",
     "from: A message has one sender: it must be a string or an object {email, name}, not an array."},
    {"{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"text\":\"t\",\"subject\":\"a\\r\\nBcc: e@v.test\"}",
     "subject: It holds a line break or another control character."},
    {"{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"text\":\"t\",\"subject\":null}",
     "subject: It must be a string, not null (leave the field out instead)."},
    {"{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"text\":\"t\",\"headers\":{\"X-A\":\"b\\nc\"}}",
     "headers.X-A: It holds a line break or another control character."},
    {"{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"text\":\"t\",\"headers\":{\"From\":\"b\"}}",
     "headers.From: The header From cannot be set: use from."},
    {"{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"text\":\"t\",\"headers\":{\"content-type\":\"b\"}}",
     "headers.content-type: Headers that begin with Content- cannot be set: bypost writes them."},
    {"{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"text\":\"t\",\"headers\":{\"X A\":\"b\"}}",
     "headers.X A: A header's name holds only printable ASCII, without spaces and colons (RFC 5322 3.6.8)."},
    {"{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"text\":\"t\",\"headers\":{\"X-A\":[\"b\",5]}}",
     "headers.X-A[1]: It must be a string, not a number."},
    {"{\"from\":\"a@b.test\",\"recipients\":[{\"to\":\"x@y.test\",\"headers\":{\"Sender\":\"a@b.test\"}}],\"text\":\"t\"}",
     "recipients[0].headers.Sender: The header Sender is set for the whole job, in headers."},
    {"{\"from\":\"a@b.test\",\"recipients\":[{\"to\":\"x@y.test\"},{\"t\":\"x@y.test\"}],\"text\":\"t\"}",
     "recipients[1].t: A recipient has no such field; did you mean to?"},
    {"{\"from\":\"a@b.test\",\"recipients\":[{\"to\":\"x@y.test\"},{}],\"text\":\"t\"}",
     "recipients[1]: The recipient has no to."},
    {"{\"from\":\"a@b.test\",\"recipients\":[{\"to\":[\"x@y.test\"]}],\"text\":\"t\"}",
     "recipients[0].to: A private message has one recipient: a string or an object {email, name}, not an array."},
    {"{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"recipients\":[{\"to\":\"x@y.test\"}],\"text\":\"t\"}",
     "recipients: A job has either recipients (a private message each) or to, cc and bcc (one message), not both."},
    {"{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"text\":\"t\",\"raw\":\"x\"}",
     "raw: A raw message is sent as it is: the job must not have text beside it."},
    {"{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"text\":\"t\",\"attachments\":[{\"filename\":\"a\",\"content\":\"!!!\"}]}",
     "attachments[0].content: It is not base64 (RFC 4648 section 4)."},
    {"{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"text\":\"t\",\"attachments\":[{\"filename\":\"a\",\"content\":\"QUI\"}]}",
     "attachments[0].content: It is not base64 (RFC 4648 section 4)."},
    {"{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"text\":\"t\",\"attachments\":[{\"filename\":\"a\"}]}",
     "attachments[0]: The attachment has no content."},
    {"{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"text\":\"t\",\"attachments\":[{\"content\":\"QUI=\"}]}",
     "attachments[0]: The attachment has no filename."},
    {"{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"text\":\"t\",\"attachments\":[{\"filename\":\"a\\\"\\r\\nX: y\",\"content\":\"QUI=\"}]}",
     "attachments[0].filename: It holds a line break or another control character."},
    {"{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"text\":\"t\",\"send_at\":\"tomorrow\"}",
     "send_at: \"tomorrow\" is not a time: write it like 2027-01-31T09:30:00Z or with an offset like +02:00, or as Unix seconds."},
    {"{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"text\":\"t\",\"send_at\":\"2027-02-30T00:00:00Z\"}",
     "send_at: \"2027-02-30T00:00:00Z\" is not a time: write it like 2027-01-31T09:30:00Z or with an offset like +02:00, or as Unix seconds."},
    {"{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"text\":\"t\",\"send_at\":1795295523691}",
     "send_at: The number looks like milliseconds; Unix time is given in seconds."},
    {"{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"text\":\"t\",\"send_at\":\"2027-02-20T00:00:00Z\",\"expires_at\":\"2027-02-19T00:00:00Z\"}",
     "expires_at: The job would expire before its send_at."},
    {"{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"text\":\"t\",\"priority\":\"urgent\"}",
     "priority: \"urgent\" must be high or normal."},
    {"{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"text\":\"t\",\"tenant\":\"a b\"}",
     "tenant: \"a b\" must hold only letters, digits, dots, hyphens and underscores."},
    {"{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"text\":\"t\",\"content\":\"c 1\"}",
     "content: \"c 1\" must hold only letters, digits, dots, hyphens and underscores."},
    {"{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"content\":\"0123456789012345678901234567890123456789012345678901234567890123\"}",
     "content: It has 64 bytes; at most 63 are allowed."},
    {"{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"content\":\"c1\",\"raw\":\"A: b\"}",
     "raw: A job has either a raw message of its own or a shared content, not both."},
    {"{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"text\":\"t\",\"require_tls\":\"yes\"}",
     "require_tls: It must be true or false, not a string."},
    {"{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"text\":\"t\",\"require_tl\":true}",
     "require_tl: A job has no such field; did you mean require_tls?"},
    {"{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"text\":\"t\",\"dsn\":1}",
     "dsn: It must be a string, not a number."},
    {"{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"text\":\"t\",\"dsn\":[\"delay\",\"sucess\"]}",
     "dsn[1]: \"sucess\" must be failure, delay, success or never."},
    {"{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"text\":\"t\",\"dsn\":{\"notify\":[\"delay\",\"never\"]}}",
     "dsn.notify[1]: never stands alone (RFC 3461 section 4.1)."},
    {"{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"text\":\"t\",\"dsn\":{\"notify\":[]}}",
     "dsn.notify: It is empty: give failure, delay or success, or leave dsn out."},
    {"{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"text\":\"t\",\"dsn\":{\"notfy\":\"delay\"}}",
     "dsn.notfy: dsn has no such field; did you mean notify?"},
    {"{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"text\":\"t\",\"dsn\":{\"return\":\"body\"}}",
     "dsn.return: \"body\" must be headers or full."},
    {"{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"text\":\"t\",\"list_unsubscribe\":\"http://x\"}",
     "list_unsubscribe: \"http://x\" must begin with https:// or mailto: (RFC 8058)."},
    {"{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"text\":\"t\",\"metadata\":[]}",
     "metadata: It must be an object, not an array."},
    {"{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"text\":\"t\",\"metadata\":{\"a\":[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]}}",
     "The job is nested deeper than 16 levels."},
    {"{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"text\":\"a\\u0000b\"}",
     "A string must not hold \\u0000."},
    {"{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"text\":\"t\",\"envelope_sender\":\"bad\"}",
     "envelope_sender: \"bad\" has no @."},
    {"{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"text\":\"t\",\"dedupe\":\"yes\"}",
     "dedupe: It must be true or false, not a string."},
    {"{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"text\":\"t\",\"tags\":[\"a\",7]}",
     "tags[1]: It must be a string, not a number."},
    {"{\"from\":\"a@b.test\",\"to\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa@y.test\",\"text\":\"t\"}",
     "to: \"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa@y.test\" has more than 64 bytes before the @."},
    {"{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"text\":\"t\",\"list_unsubscribe\":\"https://x.test/u\",\"headers\":{\"List-Unsubscribe\":\"<https://x.test>\"}}",
     "list_unsubscribe: The header List-Unsubscribe is given too: use one of them."},
    {"hello",
     "The job begins with byte 0x68: it must be a JSON object or a MessagePack map."},
    {"{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"text\":\"\377\"}",
     "The job is not valid JSON: invalid bytes in UTF8 string. (line 1, column 45)."},
    /* RFC 3629 3: no surrogates, no form longer than need be. */
    {"{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"text\":\"\355\240\200\"}",
     "The job is not valid JSON: a string is not valid UTF-8 (RFC 3629)."},
    {"{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"text\":\"\300\212\"}",
     "The job is not valid JSON: a string is not valid UTF-8 (RFC 3629)."},
    {"{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"text\":\"t\",\"headers\":{\"DKIM-Signature\":\"x\"}}",
     "headers.DKIM-Signature: The header DKIM-Signature cannot be set: bypost signs by its configuration."},
    {"{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"text\":\"t\",\"headers\":{\"Message-ID\":\"<a@b>\"}}",
     "headers.Message-ID: The header Message-ID cannot be set: bypost derives it from the job, so that a repeat is recognisable."},
    {"{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"text\":\"t\",\"attachments\":[{\"filename\":\"a\",\"content\":\"QUI=\",\"content_type\":\"pdf\"}]}",
     "attachments[0].content_type: \"pdf\" is not a content type like application/pdf."},
    {"{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"text\":\"t\",\"attachments\":[{\"filename\":\"a\",\"content\":\"QUI=\",\"disposition\":\"hidden\"}]}",
     "attachments[0].disposition: \"hidden\" must be attachment or inline."},
    {"{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"text\":\"t\",\"attachments\":[{\"filename\":\"a\",\"contents\":\"QUI=\"}]}",
     "attachments[0].contents: Attachments have no such field; did you mean content?"},
    {"{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"text\":\"t\",\"attachments\":[{\"filename\":\"a\",\"content\":\"QUI=\",\"content_id\":\"a b\"}]}",
     "attachments[0].content_id: \"a b\" is not a content ID: printable ASCII without spaces and brackets."},
    {"{\"from\":\"a@b.test\",\"recipients\":[{\"to\":\"x@y.test\",\"merge_data\":[1]}],\"text\":\"t\"}",
     "recipients[0].merge_data: It must be an object, not an array."},
    {"{\"from\":\"a@b.test\",\"recipients\":[{\"to\":\"x@y.test\",\"merge_data\":{}}],\"raw\":\"t\"}",
     "recipients[0].merge_data: A raw message is sent as it is: it takes no merge_data."},
    {"{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"text\":\"t\",\"send_at\":\"1970-01-01T00:00:00Z\"}",
     "send_at: The time is not between the years 2000 and 2100."},
    {"{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"text\":\"t\",\"list_unsubscribe\":\"https://x.test/a b\"}",
     "list_unsubscribe: \"https://x.test/a b\" holds a character that a URI must escape."},
    {"{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"text\":\"t\",\"list_unsubscribe\":[]}",
     "list_unsubscribe: It has 0 URIs; give an https: one, a mailto: one, or both."},
    {"{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"text\":\"t\",\"list_unsubscribe\":[\"https://a.test/\",\"mailto:u@a.test\",\"mailto:v@a.test\"]}",
     "list_unsubscribe: It has 3 URIs; give an https: one, a mailto: one, or both."},
    {"{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"text\":\"t\",\"list_unsubscribe\":[\"https://a.test/\",\"https://b.test/\"]}",
     "list_unsubscribe: It has two URIs of one kind; RFC 8058 wants one https: URI, with at most a mailto: one beside it."},
    {"{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"text\":\"t\",\"list_unsubscribe\":[\"https://a.test/\",7]}",
     "list_unsubscribe[1]: It must be a string, not a number."},
    {"{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"text\":\"t\",\"list_unsubscribe\":[\"mailto:u@a.test\",\"http://a.test/\"]}",
     "list_unsubscribe[1]: \"http://a.test/\" must begin with https:// or mailto: (RFC 8058)."},
    {"{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"text\":\"t\",\"list_unsubscribe\":\"{{url}}\"}",
     "list_unsubscribe: \"{{url}}\" must begin with https:// or mailto: (RFC 8058)."},
    {"{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"text\":\"t\",\"list_id\":\"news\"}",
     "list_id: \"news\" must be like news.example.com or News of ours <news.example.com> (RFC 2919)."},
    {"{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"text\":\"t\",\"list_id\":\"news.a.test\",\"headers\":{\"list-id\":\"x\"}}",
     "list_id: The header list-id is given too: use one of them."},
    {"{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"text\":\"t\",\"feedback_id\":\"a:b:c\"}",
     "feedback_id: \"a:b:c\" must have four parts with colons and no spaces, the last (the sender) of 5 to 15 characters."},
    {"{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"text\":\"t\",\"feedback_id\":\"a:b:c:sender\\nBcc: x\"}",
     "feedback_id: It holds a line break or another control character."},
    {"{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"text\":\"t\",\"precedence\":\"junk\"}",
     "precedence: \"junk\" must be bulk, list or none."},
    {"{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"text\":\"t\",\"bulk\":\"yes\"}",
     "bulk: It must be true or false, not a string."},
    {"{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"text\":\"t\",\"verp\":1}",
     "verp: It must be true or false, not a number."},
    {"{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"raw\":\"t\",\"list_id\":\"a.b\"}",
     "raw: A raw message is sent as it is: the job must not have list_id beside it."},
    {"{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"text\":\"t\",\"id\":\"\"}",
     "id: It must not be empty."},
    {"{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"text\":5}",
     "text: It must be a string, not a number."},
    {"{\"from\":\"a@b.test\",\"to\":\"x@aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.test\",\"text\":\"t\"}",
     "to: \"x@aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.test\" has a domain label of more than 63 bytes."},
    {"{\"from\":\"a@b.test\",\"to\":\"x@y..test\",\"text\":\"t\"}",
     "to: \"x@y..test\" has a domain with an empty label."},
    {"{\"from\":\"a@b.test\",\"to\":\"<x@y.test\",\"text\":\"t\"}",
     "to: \"<x@y.test\" has a character before the @ that must be quoted."},
    {"{\"from\":\"a@b.test\",\"to\":\"x@y.test>\",\"text\":\"t\"}",
     "to: \"x@y.test>\" has a > without its <."},
    /* RFC 2047 5 (3). Local parts of these forms are legal (RFC 5322 3.2.3), and no reader may decode them; GMime does not. But Python 3.11's
     * email.policy reads the first as "a@evil.test>"@y.test and the third as "a b c"@b.test, and its email.header.decode_header, for which a
     * field is a text, finds a word in the second too, and one in the last two addresses together. */
    {"{\"from\":\"a@b.test\",\"to\":\"=?utf-8?Q?a=40evil.test=3E?=@y.test\",\"text\":\"t\"}",
     "to: \"=?utf-8?Q?a=40evil.test=3E?=@y.test\" has =? before the @, which readers take for an encoded-word (RFC 2047 5)."},
    {"{\"from\":\"Ann <x=?utf-8?Q?a?=@b.test>\",\"to\":\"x@y.test\",\"text\":\"t\"}",
     "from: \"x=?utf-8?Q?a?=@b.test\" has =? before the @, which readers take for an encoded-word (RFC 2047 5)."},
    {"{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"text\":\"t\",\"reply_to\":{\"email\":\"\\\"a =?utf-8?Q?b?= c\\\"@b.test\"}}",
     "reply_to.email: \"\"a =?utf-8?Q?b?= c\"@b.test\" has =? before the @, which readers take for an encoded-word (RFC 2047 5)."},
    {"{\"from\":\"a@b.test\",\"to\":[\"=?utf-8?q?a@y.test\",\"b?=@y.test\"],\"text\":\"t\"}",
     "to[0]: \"=?utf-8?q?a@y.test\" has =? before the @, which readers take for an encoded-word (RFC 2047 5)."},
    /* RFC 2045 5.1, RFC 2231 7. */
    {"{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"text\":\"t\",\"attachments\":[{\"filename\":\"a\",\"content\":\"QUI=\",\"content_type\":\"text/x;;\"}]}",
     "attachments[0].content_type: \"text/x;;\" has a parameter that is neither like charset=utf-8 nor like title=\"a title\" (RFC 2045 5.1)."},
    {"{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"text\":\"t\",\"attachments\":[{\"filename\":\"a\",\"content\":\"QUI=\",\"content_type\":\"text/x; a\"}]}",
     "attachments[0].content_type: \"text/x; a\" has a parameter that is neither like charset=utf-8 nor like title=\"a title\" (RFC 2045 5.1)."},
    {"{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"text\":\"t\",\"attachments\":[{\"filename\":\"a\",\"content\":\"QUI=\",\"content_type\":\"text/x; a=\"}]}",
     "attachments[0].content_type: \"text/x; a=\" has a parameter that is neither like charset=utf-8 nor like title=\"a title\" (RFC 2045 5.1)."},
    {"{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"text\":\"t\",\"attachments\":[{\"filename\":\"a\",\"content\":\"QUI=\",\"content_type\":\"text/x; a =b\"}]}",
     "attachments[0].content_type: \"text/x; a =b\" has a parameter that is neither like charset=utf-8 nor like title=\"a title\" (RFC 2045 5.1)."},
    {"{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"text\":\"t\",\"attachments\":[{\"filename\":\"a\",\"content\":\"QUI=\",\"content_type\":\"text/x; =b\"}]}",
     "attachments[0].content_type: \"text/x; =b\" has a parameter that is neither like charset=utf-8 nor like title=\"a title\" (RFC 2045 5.1)."},
    {"{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"text\":\"t\",\"attachments\":[{\"filename\":\"a\",\"content\":\"QUI=\",\"content_type\":\"text/x; a=b (comment)\"}]}",
     "attachments[0].content_type: \"text/x; a=b (comment)\" has a value that must stand in quotes: it is no token (RFC 2045 5.1)."},
    {"{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"text\":\"t\",\"attachments\":[{\"filename\":\"a\",\"content\":\"QUI=\",\"content_type\":\"text/x; a=b/c\"}]}",
     "attachments[0].content_type: \"text/x; a=b/c\" has a value that must stand in quotes: it is no token (RFC 2045 5.1)."},
    {"{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"text\":\"t\",\"attachments\":[{\"filename\":\"a\",\"content\":\"QUI=\",\"content_type\":\"text/x; a=\303\274\"}]}",
     "attachments[0].content_type: \"text/x; a=\303\274\" has a parameter that is neither like charset=utf-8 nor like title=\"a title\" (RFC 2045 5.1)."},
    {"{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"text\":\"t\",\"attachments\":[{\"filename\":\"a\",\"content\":\"QUI=\",\"content_type\":\"text/x; a=\\\"b\"}]}",
     "attachments[0].content_type: \"text/x; a=\"b\" has a quoted value without its closing quote."},
    {"{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"text\":\"t\",\"attachments\":[{\"filename\":\"a\",\"content\":\"QUI=\",\"content_type\":\"text/x; a=\\\"b\\\\\\\"\"}]}",
     "attachments[0].content_type: \"text/x; a=\"b\\\"\" has a quoted value without its closing quote."},
    {"{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"text\":\"t\",\"attachments\":[{\"filename\":\"a\",\"content\":\"QUI=\",\"content_type\":\"text/x; a=\\\"b\\\"c\"}]}",
     "attachments[0].content_type: \"text/x; a=\"b\"c\" has a parameter that is neither like charset=utf-8 nor like title=\"a title\" (RFC 2045 5.1)."},
    {"{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"text\":\"t\",\"attachments\":[{\"filename\":\"a\",\"content\":\"QUI=\",\"content_type\":\"text/x; a*=utf-8''b\"}]}",
     "attachments[0].content_type: \"text/x; a*=utf-8''b\" has a parameter whose name holds *, ' or %: give the value itself in quotes, it is extended where need be (RFC 2231)."},
    {"{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"text\":\"t\",\"attachments\":[{\"filename\":\"a\",\"content\":\"QUI=\",\"content_type\":\"text/x; a=1; b=2; A=3\"}]}",
     "attachments[0].content_type: \"text/x; a=1; b=2; A=3\" has a parameter twice."},
    {"{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"text\":\"t\",\"attachments\":[{\"filename\":\"a\",\"content\":\"QUI=\",\"content_type\":\"text/x y\"}]}",
     "attachments[0].content_type: \"text/x y\" is not a content type like application/pdf."},
    /* mustache(5): what no recipient's data would mend is the whole job's fault. */
    {"{\"from\":\"a@b.test\",\"recipients\":[{\"to\":\"x@y.test\",\"merge_data\":{}},{\"to\":\"z@y.test\"}],\"text\":\"Dear\\n  {{#a}}\"}",
     "text, line 2, column 3: the section \"a\" has no end"},
    {"{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"merge_global_data\":{},\"html\":\"<p>\303\274\\n{{>a}}\"}",
     "html, line 2, column 1: \"{{>\" is not supported: there are no partials"},
    {"{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"merge_global_data\":{},\"text\":\"t\",\"subject\":\"\303\274 {{/a}}\"}",
     "subject, line 1, column 3: the end of a section \"a\" that did not begin"},
    {"{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"text\":\"{{bypost.email}}\",\"headers\":{\"X-A\":\"1\",\"X-B\":\"{{b\"}}",
     "X-B, line 1, column 1: a tag \"{{\" has no name or no end \"}}\""},
    /* Variables of ours are everybody's. */
    {"{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"text\":\"t\\n\303\274{{#bypost.id}}{{& bypost.mail }}{{/bypost.id}}\"}",
     "text, line 2, column 20: there is no variable \"bypost.mail\"; of bypost there are email, unsubscribe_token, unsubscribe_url, "
     "unsubscribe_mailto, message_id, list_id, tenant, campaign, id, job"},
    {"{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"text\":\"t\",\"list_unsubscribe\":\"https://u.test/{{bypost.token}}\"}",
     "list_unsubscribe: there is no variable {{bypost.token}}; of bypost there are email, unsubscribe_token, unsubscribe_url, "
     "unsubscribe_mailto, message_id, list_id, tenant, campaign, id, job"},
    {"{\"content\":\"c\",\"to\":\"x@y.test\",\"subject\":\"{{}}\"}",
     "subject, line 1, column 1: a tag \"{{\" has no name or no end \"}}\""},
    {"{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"text\":\"t\",\"list_unsubscribe\":\"https://u.test/{{#a}}{{/a}}\"}",
     "list_unsubscribe, in \"{{#a}}\": line 1, column 1: the section \"a\" has no end"},
    {"{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"text\":\"t\",\"list_id\":\"{{#a}} <n.b.test>\"}",
     "list_id, line 1, column 1: the section \"a\" has no end"},
    {"{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"text\":\"t\",\"feedback_id\":\"{{a:b:c:sender\"}",
     "feedback_id, line 1, column 1: a tag \"{{\" has no name or no end \"}}\""},};
/* clang-format on */

static const char *const good_jobs[] = {
    "{\"from\":\"Ann <ann@Example.ORG>\",\"to\":\"bob@example.net\",\"subject\":\"Hello\",\"text\":\"Hi Bob\"}",
    "{\"from\":{\"email\":\"ann@example.org\",\"name\":\"Ann, B.\"},\"to\":[\"\\\"Doe, John\\\" "
    "<john@example.net>\",{\"email\":\"x@[IPv6:2001:db8::1]\"}],"
    "\"cc\":\"<c@example.net>\",\"bcc\":[\"d@[192.0.2.1]\"],\"reply_to\":[\"r@example.org\"],\"envelope_sender\":\"\",\"html\":\"<p>\","
    "\"id\":\"one\","
    "\"headers\":{\"X-A\":[\"1\",\"2\"],\"Sender\":\"s@example.org\"},\"tags\":\"t\",\"metadata\":{\"a\":[1,2.5,null,true]},\"tenant\":\"t-"
    "1\","
    "\"campaign\":\"c_1\",\"pool\":\"p.1\",\"priority\":\"high\",\"send_at\":\"2027-01-31T09:30:00.250+02:00\",\"expires_at\":1811111111}",
    "{\"from\":\"a@b.test\",\"recipients\":[{\"to\":\"\\\"quoted "
    "local\\\"@b.test\",\"merge_data\":{\"n\":1},\"metadata\":{\"b\":2},\"headers\":{\"X-S\":\"v\"}},"
    "{\"to\":\"\xc3\xbc@b\xc3\xbc"
    "cher.test\"},{\"to\":\"Z\xc3\xbc <z@b.test>\"}],\"text\":\"t\",\"metadata\":{\"a\":1,\"b\":1},\"dedupe\":true,"
    "\"merge_global_data\":{\"g\":{\"h\":[]}},\"list_unsubscribe\":\"mailto:u@b.test\"}",
    "{\"from\":\"a@b.test\",\"to\":[\"x@b.test\",\"x@B.test\",\"y@b.test\"],\"text\":\"t\",\"dedupe\":true,\"attachments\":[{\"filename\":"
    "\"a.bin\",\"content\":"
    "\"AAEC\\r\\n/w==\"},{\"filename\":\"l.png\",\"content_type\":\"image/png; x=1\",\"content\":\"\",\"content_id\":\"<l@x>\"}]}",
    "{\"from\":\"a@b.test\",\"to\":\"x@b.test\",\"raw\":\"Subject: x\\r\\n\\r\\nbody\"}",
    /* Without merge data these are texts; a recipient's own header field is that recipient's. */
    "{\"from\":\"a@b.test\",\"to\":\"x@b.test\",\"subject\":\"{{\",\"text\":\"{{#a}}\",\"html\":\"{{>\",\"headers\":{\"X\":\"{{/\"}}",
    "{\"from\":\"a@b.test\",\"recipients\":[{\"to\":\"?=a=b?@b.test\",\"merge_data\":{},\"headers\":{\"X\":\"{{\"}}],\"text\":\"{{a}}\"}",
};

static struct job *decode(const char *text, char error[512]) {
    return job_decode((const uint8_t *)text, strlen(text), &config, error, 512);
}

static void test_each_fault_is_named(void **state) {
    for (size_t i = 0; i < sizeof bad_jobs / sizeof *bad_jobs; i++) {
        char error[512];
        struct job *job = decode(bad_jobs[i].job, error);
        if (job) {
            fail_msg("taken for good: %s", bad_jobs[i].job);
        }
        assert_string_equal(error, bad_jobs[i].reason);
    }
}

/* What the configuration has for bulk mail goes to jobs that are bulk and say nothing themselves. */
static void test_bulk_mail_takes_what_is_configured(void **state) {
    static const struct {
        const char *fields, *unsubscribe, *list_id, *feedback_id, *verp;
        enum job_precedence precedence;
    } cases[] = {
        {"\"text\":\"t\"", NULL, NULL, NULL, NULL, PRECEDENCE_UNSET},
        {"\"text\":\"t\",\"campaign\":\"c\"", "<https://u/{{bypost.unsubscribe_token}}>, <mailto:u@b.test>", "l.b.test", "a:b:c:sender",
         "b@bounces.b.test", PRECEDENCE_BULK},
        {"\"text\":\"t\",\"bulk\":true", "<https://u/{{bypost.unsubscribe_token}}>, <mailto:u@b.test>", "l.b.test", "a:b:c:sender",
         "b@bounces.b.test", PRECEDENCE_BULK},
        {"\"text\":\"t\",\"campaign\":\"c\",\"bulk\":false", NULL, NULL, NULL, NULL, PRECEDENCE_UNSET},
        {"\"text\":\"t\",\"campaign\":\"c\",\"list_unsubscribe\":\"https://o/\",\"list_id\":\"o.b\",\"feedback_id\":\":::other\","
         "\"precedence\":\"none\",\"verp\":false",
         "https://o/", "o.b", ":::other", NULL, PRECEDENCE_NONE},
        {"\"text\":\"t\",\"campaign\":\"c\",\"headers\":{\"LIST-UNSUBSCRIBE\":\"<x:y>\",\"list-id\":\"<z>\",\"Precedence\":\"junk\"}", NULL,
         NULL, "a:b:c:sender", "b@bounces.b.test", PRECEDENCE_UNSET},
        {"\"raw\":\"A: b\",\"campaign\":\"c\"", NULL, NULL, NULL, "b@bounces.b.test", PRECEDENCE_UNSET},
        {"\"text\":\"t\",\"verp\":true", NULL, NULL, NULL, "b@bounces.b.test", PRECEDENCE_UNSET},
        /* RFC 5321 4.5.5: the null sender stays */
        {"\"text\":\"t\",\"verp\":true,\"envelope_sender\":\"<>\"", NULL, NULL, NULL, NULL, PRECEDENCE_UNSET},
    };
    struct config bulk = config;
    bulk.bulk.unsubscribe_url = (char *)"https://u/{{bypost.unsubscribe_token}}";
    bulk.bulk.unsubscribe_mailto = (char *)"mailto:u@b.test";
    bulk.bulk.list_id = (char *)"l.b.test";
    bulk.bulk.feedback_id = (char *)"a:b:c:sender";
    bulk.bulk.precedence = 1;
    bulk.verp.domain = (char *)"bounces.b.test";
    bulk.verp.prefix = (char *)"b";
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[1024], error[512];
        snprintf(text, sizeof text, "{\"from\":\"a@b.test\",\"to\":\"x@y.test\",%s}", cases[i].fields);
        struct job *job = job_decode((const uint8_t *)text, strlen(text), &bulk, error, sizeof error);
        if (!job) {
            fail_msg("%s: %s", text, error);
        }
        const char *got[] = {job->list_unsubscribe, job->list_id, job->feedback_id, job->verp_address};
        const char *wanted[] = {cases[i].unsubscribe, cases[i].list_id, cases[i].feedback_id, cases[i].verp};
        for (size_t m = 0; m < 4; m++) {
            assert_string_equal(got[m] ? got[m] : "none", wanted[m] ? wanted[m] : "none");
        }
        assert_int_equal(job->precedence, cases[i].precedence);
        assert_int_equal(job->has_built_ins, job->list_unsubscribe && strstr(job->list_unsubscribe, "bypost."));
        assert_false(job->fills_built_ins);
        job_release(job);
    }
    bulk.verp.jobs = CONFIG_VERP_ALL;
    char error[512];
    struct job *job = job_decode((const uint8_t *)good_jobs[0], strlen(good_jobs[0]), &bulk, error, sizeof error);
    assert_non_null(job);
    assert_string_equal(job->verp_address, "b@bounces.b.test");
    job_release(job);
}

/* A tenant's own addresses stand before those of all; where nobody has a domain a job cannot ask for them. */
static void test_verp_senders_are_the_tenants(void **state) {
    static struct config_verp_tenant tenants[] = {{(char *)"alp", (char *)"b.alp.test", NULL},
                                                  {(char *)"mill", NULL, (char *)"m"},
                                                  {(char *)"shop", (char *)"b.shop.test", (char *)"s"}};
    static const char nowhere[] =
        "verp: The sender's configuration has no domain for it: set `verp: {domain: bounces.example.com}` there (or "
        "the tenant's own, below `tenants`), or leave verp out.";
    static const struct {
        const char *fields, *domain; /* of all */
        const char *verp, *error;
    } cases[] = {{"\"tenant\":\"shop\"", "b.test", "s@b.shop.test", ""},
                 {"\"tenant\":\"alp\"", "b.test", "b@b.alp.test", ""},
                 {"\"tenant\":\"mill\"", "b.test", "m@b.test", ""},
                 {"\"tenant\":\"other\"", "b.test", "b@b.test", ""},
                 {"\"tenant\":\"Shop\"", "b.test", "b@b.test", ""},
                 {"\"id\":\"1\"", "b.test", "b@b.test", ""},
                 {"\"tenant\":\"shop\"", NULL, "s@b.shop.test", ""},
                 {"\"tenant\":\"mill\"", NULL, NULL, nowhere},
                 {"\"tenant\":\"other\"", NULL, NULL, nowhere},
                 {"\"id\":\"1\"", NULL, NULL, nowhere},
                 {"\"id\":\"1\",\"envelope_sender\":\"\"", NULL, NULL, ""}};
    struct config_pool pool = {.name = (char *)"main"};
    struct config verp = config;
    verp.pools = &pool;
    verp.pool_count = 1;
    verp.verp.prefix = (char *)"b";
    verp.verp.tenants = tenants;
    verp.verp.tenant_count = 3;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[512], error[512];
        snprintf(text, sizeof text, "{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"text\":\"t\",\"verp\":true,%s}", cases[i].fields);
        verp.verp.domain = (char *)cases[i].domain;
        struct job *job = job_decode((const uint8_t *)text, strlen(text), &verp, error, sizeof error);
        assert_string_equal(error, cases[i].error);
        assert_int_equal(job == NULL, *cases[i].error != 0);
        if (job && cases[i].verp) {
            assert_string_equal(job->verp_address, cases[i].verp);
        } else if (job) {
            assert_null(job->verp_address);
        }
        job_release(job);
    }
    /* Not asked for by the job, or by a client who need not know: no fault. */
    char error[512];
    verp.verp.domain = NULL;
    verp.verp.jobs = CONFIG_VERP_ALL;
    struct job *job = job_decode((const uint8_t *)good_jobs[0], strlen(good_jobs[0]), &verp, error, sizeof error);
    assert_non_null(job);
    assert_null(job->verp_address);
    job_release(job);
    job = decode("{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"text\":\"t\",\"verp\":true}", error);
    assert_non_null(job);
    job_release(job);
}

static void test_variables_of_ours_are_seen(void **state) {
    static const struct {
        const char *text;
        bool fills, has; /* `has` also where merge data alone make a template of it: such a message is never another recipient's */
    } cases[] = {{"{{bypost.email}}", true, true},
                 {"a {{{bypost.email}}}", true, true},
                 {"{{& bypost.email }}", true, true},
                 {"{{#bypost.email}}x{{/bypost.email}}", true, true},
                 {"{{^bypost.email}}x{{/bypost.email}}", true, true},
                 {"bypost.email", false, false},
                 {"{bypost.email}", false, false},
                 {"{{x}} bypost.email", false, true},
                 {"{{=<% %>=}}<%bypost.email%>", false, true},
                 {"{{\\nbypost.email}}", false, true},
                 {"bypost. {{bypost.id}}", true, true}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[512], error[512];
        snprintf(text, sizeof text, "{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"text\":\"%s\"}", cases[i].text);
        struct job *job = decode(text, error);
        assert_non_null(job);
        if (job->has_built_ins != cases[i].has || job->fills_built_ins != cases[i].fills) {
            fail_msg("%s", cases[i].text);
        }
        job_release(job);
    }
}

/* Everything that the decoder fills in, as text. */
static char *describe(const struct job *job) {
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    fprintf(out, "id %s tenant %s campaign %s pool %s from %s/%s/%s sender %s envelope %s high %d send %" PRIu64 " expires %" PRIu64 "\n",
            job->id, job->tenant, job->campaign, job->pool, job->from.email, job->from.name, job->from.domain, job->sender_header.email,
            job->envelope_sender, job->high, job->send_at_ms, job->expires_at_ms);
    fprintf(out, "subject %s text %s html %s raw %.*s global %s metadata %s unsubscribe %s\n", job->subject, job->text, job->html,
            (int)job->raw_length, job->raw ? (const char *)job->raw : "", job->merge_global_data, job->metadata, job->list_unsubscribe);
    for (uint32_t i = 0; i < job->reply_to_count; i++) {
        fprintf(out, "reply_to %s\n", job->reply_to[i].email);
    }
    for (uint32_t i = 0; i < job->to_count; i++) {
        fprintf(out, "to %s %s\n", job->to[i].email, job->to[i].name);
    }
    for (uint32_t i = 0; i < job->header_count; i++) {
        fprintf(out, "header %s: %s\n", job->headers[i].name, job->headers[i].value);
    }
    for (uint32_t i = 0; i < job->tag_count; i++) {
        fprintf(out, "tag %s\n", job->tags[i]);
    }
    for (uint32_t i = 0; i < job->attachment_count; i++) {
        const struct job_attachment *attachment = &job->attachments[i];
        fprintf(out, "attachment %s %s %s %d:", attachment->filename, attachment->content_type, attachment->content_id,
                attachment->is_inline);
        for (size_t j = 0; j < attachment->length; j++) {
            fprintf(out, " %02x", attachment->bytes[j]);
        }
        fprintf(out, "\n");
    }
    for (uint32_t i = 0; i < job->recipient_total; i++) {
        const struct job_recipient *recipient = &job->recipients[i];
        fprintf(out, "recipient %s %s %s kind %d merge %s metadata %s headers %u\n", recipient->mailbox.email, recipient->mailbox.name,
                recipient->mailbox.domain, recipient->kind, recipient->merge_data, recipient->metadata, recipient->header_count);
    }
    for (uint32_t i = 0; i < job->pending_count; i++) {
        fprintf(out, "pending %u\n", job->pending[i]);
    }
    fclose(out);
    return text;
}

static void test_messagepack_says_the_same_as_json(void **state) {
    for (size_t i = 0; i < sizeof good_jobs / sizeof *good_jobs; i++) {
        char error[512];
        struct job *from_json = decode(good_jobs[i], error);
        if (!from_json) {
            fail_msg("%s: %s", error, good_jobs[i]);
        }
        json_t *tree = json_loads(good_jobs[i], 0, NULL);
        struct bytes packed = {.length = 0};
        msgpack_write(&packed, tree);
        struct job *from_msgpack = job_decode(packed.at, packed.length, &config, error, sizeof error);
        if (!from_msgpack) {
            fail_msg("%s: %s", error, good_jobs[i]);
        }
        char *a = describe(from_json), *b = describe(from_msgpack);
        assert_string_equal(a, b);
        free(a);
        free(b);
        free(packed.at);
        json_decref(tree);
        job_release(from_json);
        job_release(from_msgpack);
    }
}

static void test_fields_arrive(void **state) {
    char error[512];
    struct job *job = decode(good_jobs[1], error);
    assert_non_null(job);
    assert_string_equal(job->from.name, "Ann, B.");
    assert_string_equal(job->recipients[0].mailbox.name, "Doe, John");
    assert_int_equal(job->recipient_total, 4);
    assert_int_equal(job->recipients[2].kind, RECIPIENT_CC);
    assert_int_equal(job->recipients[3].kind, RECIPIENT_BCC);
    assert_string_equal(job->recipients[3].mailbox.domain, "[192.0.2.1]");
    assert_string_equal(job->envelope_sender, "");
    assert_string_equal(job->sender_header.email, "s@example.org");
    assert_int_equal(job->header_count, 2);
    assert_true(job->high);
    assert_int_equal(job->send_at_ms, UINT64_C(1801380600250)); /* 07:30:00.250Z */
    assert_int_equal(job->expires_at_ms, UINT64_C(1811111111000));
    job_release(job);
}

/* RFC 5321 2.3.11: only the domain is compared without case. */
/* RFC 3461 4.1 and 4.3 in the job's words. */
static void test_dsn(void **state) {
    static const struct {
        const char *dsn;
        uint8_t bits;
        bool full;
    } cases[] = {
        {"true", DSN_FAILURE, false},
        {"false", 0, false},
        {"\"never\"", 0, false},
        {"\"delay\"", DSN_DELAY, false},
        {"[\"failure\",\"success\"]", DSN_FAILURE | DSN_SUCCESS, false},
        {"{}", DSN_FAILURE, false},
        {"{\"return\":\"full\"}", DSN_FAILURE, true},
        {"{\"return\":\"headers\",\"notify\":\"success\"}", DSN_SUCCESS, false},
        {"{\"notify\":[\"delay\"],\"return\":\"full\"}", DSN_DELAY, true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[256], error[512];
        snprintf(text, sizeof text, "{\"from\":\"a@b.test\",\"to\":\"x@y.test\",\"text\":\"t\",\"dsn\":%s}", cases[i].dsn);
        struct job *job = decode(text, error);
        assert_non_null(job);
        assert_int_equal(job->dsn, cases[i].bits);
        assert_int_equal(job->dsn_full, cases[i].full);
        job_release(job);
    }
}

static void test_a_content_is_named(void **state) {
    char error[512];
    struct job *job = decode("{\"content\":\"spring-1.2\",\"recipients\":[{\"to\":\"x@y.test\"}]}", error);
    assert_non_null(job);
    assert_string_equal(job->content_id, "spring-1.2");
    assert_null(job->from.email);
    job_release(job);
}

/* What a shared content may say: all that is of the message, nothing that is of one job. */
static void test_contents(void **state) {
    static const struct {
        const char *content, *reason;
    } cases[] = {
        {"{\"subject\":\"s\",\"text\":\"t {{n}}\",\"html\":\"<b>\",\"from\":\"a@b.test\",\"tags\":[\"x\"],\"dsn\":true,\"pool\":\"p\"}",
         NULL},
        {"{\"raw\":\"From: a@b.test\\n\\nHello\"}", NULL},
        {"{\"text\":\"t\",\"to\":\"x@y.test\"}", "to: A shared content has no such field: it belongs into the jobs that name the content."},
        {"{\"text\":\"t\",\"recipients\":[]}",
         "recipients: A shared content has no such field: it belongs into the jobs that name the content."},
        {"{\"text\":\"t\",\"content\":\"c\"}",
         "content: A shared content has no such field: it belongs into the jobs that name the content."},
        {"{\"txt\":\"t\"}", "txt: A content has no such field; did you mean text?"},
        {"{\"text\":\"t\",\"raw\":\"A: b\"}", "raw: A raw message is sent as it is: the job must not have text beside it."},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char error[512];
        struct job *job = job_decode_content((const uint8_t *)cases[i].content, strlen(cases[i].content), &config, error, sizeof error);
        if (!cases[i].reason) {
            assert_non_null(job);
            assert_int_equal(job->recipient_total, 0);
        } else {
            assert_null(job);
            assert_string_equal(error, cases[i].reason);
        }
        job_release(job);
    }
}

static void test_domains_become_lower_case_and_local_parts_stay(void **state) {
    char error[512];
    struct job *job = decode("{\"from\":\"Ann.B@Example.ORG\",\"to\":\"x@y.test\",\"text\":\"t\"}", error);
    assert_string_equal(job->from.email, "Ann.B@example.org");
    job_release(job);
}

static void test_dedupe_keeps_indexes(void **state) {
    char error[512];
    struct job *job = decode(good_jobs[3], error);
    assert_int_equal(job->recipient_total, 3);
    assert_int_equal(job->pending_count, 2);
    assert_int_equal(job->entry_recipients, 2);
    assert_int_equal(job->pending[1], 2);
    assert_int_equal(job->attachments[0].length, 4);
    assert_memory_equal(job->attachments[0].bytes, "\x00\x01\x02\xff", 4);
    assert_true(job->attachments[1].is_inline);
    assert_string_equal(job->attachments[1].content_id, "l@x");
    job_release(job);
}

static void test_recipient_metadata_goes_over_the_jobs(void **state) {
    char error[512];
    struct job *job = decode(good_jobs[2], error);
    assert_string_equal(job->recipients[0].metadata, "{\"a\":1,\"b\":2}");
    assert_null(job->recipients[1].metadata);
    job_release(job);
}

static void test_binary_where_bytes_are_meant(void **state) {
    static const char job_text[] = "\x84\xa4"
                                   "from\xa8"
                                   "a@b.test\xa2to\xa8x@b.test\xa4text\xa1t\xab"
                                   "attachments\x91\x82\xa8"
                                   "filename\xa1"
                                   "f\xa7"
                                   "content\xc4\x03\x00\xff\x01";
    char error[512];
    struct job *job = job_decode((const uint8_t *)job_text, sizeof job_text - 1, &config, error, sizeof error);
    assert_non_null(job);
    assert_int_equal(job->attachments[0].length, 3);
    assert_memory_equal(job->attachments[0].bytes, "\x00\xff\x01", 3);
    job_release(job);
    static const char misplaced[] = "\x81\xa7subject\xc4\x01x";
    assert_null(job_decode((const uint8_t *)misplaced, sizeof misplaced - 1, &config, error, sizeof error));
    assert_string_equal(error, "subject: Binary belongs only in raw and in the content of attachments; this must be a string.");
}

static void test_messagepack_faults(void **state) {
    static const struct {
        const char *bytes;
        size_t length;
        const char *reason;
    } cases[] = {
        {"\x81\xa4"
         "from",
         6, "from: The job is not valid MessagePack: it ends too early."},
        {"\x81\xa4"
         "from\xdd\xff\xff\xff\xff",
         11, "from[0]: The job is not valid MessagePack: it ends too early."},
        {"\xdf\xff\xff\xff\xff", 5, "The job is not valid MessagePack: it ends too early."},
        {"\x81\x01\x01", 3, "A map's keys must be strings of at most 255 bytes."},
        {"\x82\xa2to\x01\xa2to\x01", 9, "to: The field is given twice."},
        {"\x81\xa2to\xa1\xff", 6, "to: The string is not valid UTF-8."},
        {"\x81\xa2to\xa1\x00", 6, "to: A string must not hold NUL."},
        {"\x81\xa2to\xd4\x01\x00", 7, "to: MessagePack type 0xd4 has no meaning in a job."},
        {"\x80\x80", 2, "The job is not valid MessagePack: 1 bytes follow its end."},
        {"\x81\xa2to\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00", 13, "to: The number is not finite."},
        {"\x81\xa2to\xcf\xff\xff\xff\xff\xff\xff\xff\xff", 13, "to: The number is too large."},
        {"", 0, "The job is empty."},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char error[512];
        assert_null(job_decode((const uint8_t *)cases[i].bytes, cases[i].length, &config, error, sizeof error));
        assert_string_equal(error, cases[i].reason);
    }
}

/* Bounds: recipients, message, values. */
static void test_sizes(void **state) {
    char error[512];
    json_t *tree = json_pack("{s:s,s:s,s:[]}", "from", "a@b.test", "text", "t", "recipients");
    for (int i = 0; i < 501; i++) {
        json_array_append_new(json_object_get(tree, "recipients"), json_pack("{s:s}", "to", "x@b.test"));
    }
    char *text = json_dumps(tree, 0);
    assert_null(decode(text, error));
    assert_string_equal(error, "recipients: The job has 501 recipients; at most 500 are allowed: split it.");
    free(text);
    json_decref(tree);

    char *body = malloc((1 << 20) + 2);
    memset(body, 'x', (1 << 20) + 1);
    body[(1 << 20) + 1] = 0;
    tree = json_pack("{s:s,s:s,s:s}", "from", "a@b.test", "text", body, "to", "x@b.test");
    text = json_dumps(tree, 0);
    assert_null(decode(text, error));
    assert_string_equal(error, "The message would have at least 1048577 bytes; at most 1048576 are allowed (`max_message_size`).");
    free(text);
    free(body);
    json_decref(tree);

    size_t many = 300000;
    text = malloc(many * 2 + 64);
    char *at = text + sprintf(text, "{\"metadata\":[0");
    for (size_t i = 0; i < many; i++) {
        at += sprintf(at, ",0");
    }
    sprintf(at, "]}");
    assert_null(decode(text, error));
    assert_string_equal(error, "The job has more than 200000 values.");
    free(text);
}

static uint64_t next_random(uint64_t *seed) {
    *seed = *seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return *seed >> 33;
}

/* One to six small changes of a copy that has room for them. */
static size_t mutate(uint8_t *bytes, size_t length, size_t size, uint64_t *seed) {
    static const char *const splices[] = {"\"",      "{",      "}", "[", "]", ",",     ":",    "null",
                                          "\\u0000", "\\r\\n", "@", "<", ">", "1e999", "\xff", "\xdd\xff\xff\xff\xff",
                                          "\xc4",    "\"to\":"};
    for (uint64_t n = 1 + next_random(seed) % 6; n > 0 && length > 0; n--) {
        size_t at = next_random(seed) % length;
        const char *splice = splices[next_random(seed) % (sizeof splices / sizeof *splices)];
        size_t more = strlen(splice), less = 1 + next_random(seed) % 8;
        switch (next_random(seed) % 4) {
        case 0:
            bytes[at] = (uint8_t)next_random(seed);
            break;
        case 1:
            bytes[at] ^= (uint8_t)(1u << next_random(seed) % 8);
            break;
        case 2:
            less = less > length - at ? length - at : less;
            memmove(bytes + at, bytes + at + less, length - at - less);
            length -= less;
            break;
        default:
            if (length + more <= size) {
                memmove(bytes + at + more, bytes + at, length - at);
                memcpy(bytes + at, splice, more);
                length += more;
            }
            break;
        }
    }
    return length;
}

/* Whatever comes, the answer is a whole job or a sentence. */
static void test_mutated_jobs(void **state) {
    uint64_t seed = 20, good = 0;
    enum { COUNT = sizeof good_jobs / sizeof *good_jobs };
    uint8_t seeds[2 * COUNT][2048];
    size_t lengths[2 * COUNT];
    for (size_t i = 0; i < COUNT; i++) {
        json_t *tree = json_loads(good_jobs[i], 0, NULL);
        struct bytes packed = {.length = 0};
        msgpack_write(&packed, tree);
        lengths[2 * i] = strlen(good_jobs[i]);
        lengths[2 * i + 1] = packed.length;
        memcpy(seeds[2 * i], good_jobs[i], lengths[2 * i]);
        memcpy(seeds[2 * i + 1], packed.at, packed.length);
        free(packed.at);
        json_decref(tree);
    }
    for (int i = 0; i < MUTATIONS; i++) {
        uint8_t bytes[2048];
        size_t which = next_random(&seed) % (2 * COUNT);
        memcpy(bytes, seeds[which], lengths[which]);
        size_t length = mutate(bytes, lengths[which], sizeof bytes, &seed);
        uint8_t *exact = malloc(length ? length : 1); /* so that the sanitizer sees a read behind the end */
        memcpy(exact, bytes, length);
        char error[512];
        struct job *job = job_decode(exact, length, &config, error, sizeof error);
        free(exact);
        if (job) {
            good++;
            assert_true(job->pending_count > 0 && job->pending_count <= job->recipient_total && job->from.email);
            for (uint32_t j = 0; j < job->recipient_total; j++) {
                const char *email = job->recipients[j].mailbox.email;
                assert_true(!strpbrk(email, "\r\n") && job->recipients[j].mailbox.domain[-1] == '@' && strlen(email) <= 254);
            }
            job_release(job);
        } else {
            assert_true(strlen(error) > 0);
        }
    }
    assert_true(good > MUTATIONS / 100 && good < MUTATIONS * 9 / 10); /* the mutations reach both sides */
}

/* What this machine lacks makes no dead letter of a job; what a job says of memory does. */
static void test_starved(void **state) {
    char error[256] = "";
    assert_true(job_decode_starved("Out of memory."));
    assert_true(job_decode_starved("recipients[3].to: Out of memory."));
    const char *said = "{\"Out of memory.\":1}";
    assert_null(job_decode((const uint8_t *)said, strlen(said), &config, error, sizeof error));
    assert_false(job_decode_starved(error));
    assert_false(job_decode_starved(""));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_fault_is_named),
        cmocka_unit_test(test_bulk_mail_takes_what_is_configured),
        cmocka_unit_test(test_verp_senders_are_the_tenants),
        cmocka_unit_test(test_variables_of_ours_are_seen),
        cmocka_unit_test(test_starved),
        cmocka_unit_test(test_dsn),
        cmocka_unit_test(test_a_content_is_named),
        cmocka_unit_test(test_contents),
        cmocka_unit_test(test_messagepack_says_the_same_as_json),
        cmocka_unit_test(test_fields_arrive),
        cmocka_unit_test(test_domains_become_lower_case_and_local_parts_stay),
        cmocka_unit_test(test_dedupe_keeps_indexes),
        cmocka_unit_test(test_recipient_metadata_goes_over_the_jobs),
        cmocka_unit_test(test_binary_where_bytes_are_meant),
        cmocka_unit_test(test_messagepack_faults),
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_mutated_jobs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
