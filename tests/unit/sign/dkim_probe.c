/* dkim_probe.c: renders and signs random messages of every shape for tests/integration/test_dkim, which reads them with other
 * implementations. dkim_probe stream DIRECTORY COUNT SEED ASKED: signs with the keys in DIRECTORY (those of `signings` below) and writes
 * each message to standard output behind a line of its lengths, the first ASKED with what was asked, as JSON.
 * dkim_probe speed DIRECTORY SECONDS: signatures, and messages through a press of one thread, a second of CPU time. */
#include "control/sign/sign.h"

#include <assert.h>
#include <jansson.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { TEXT_MAX = 20000, PRESS_CAPACITY = 256, MAILBOXES_MAX = 60, KEYS_MAX = 3, CONTENTS_ENOUGH = 20 };

static uint64_t seed;
static uint32_t dice(uint32_t sides) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(seed >> 33) % sides;
}

static void die(const char *what, const char *why) {
    fprintf(stderr, "dkim_probe: %s: %s\n", what, why);
    exit(2);
}

/* What a random message is made of lives until it is written. */
static void *kept[8192];
static unsigned kept_count;
static void *keep(void *memory) {
    if (memory == NULL || kept_count == sizeof(kept) / sizeof(kept[0]))
        die("memory", "too little");
    return kept[kept_count++] = memory;
}
static void drop_kept(void) {
    while (kept_count > 0)
        free(kept[--kept_count]);
}

static const char *const words[] = {"Hello",
                                    "world",
                                    "a",
                                    "=?not=?=",
                                    "Fu\xC3\x9F",
                                    "\xE6\x97\xA5\xE6\x9C\xAC\xE8\xAA\x9E",
                                    "\xD0\x9F\xD1\x80\xD0\xB8\xD0\xB2\xD0\xB5\xD1\x82",
                                    "\xF0\x9F\x8E\x89",
                                    "(paren)",
                                    "\"quoted\"",
                                    "back\\slash",
                                    "a,b;c:d",
                                    "<angle@x>",
                                    "=3D",
                                    "averyveryverylongwordthatgoesonandonwithoutanyspaceinitforquiteawhileandthensomemoreofit",
                                    "\xD9\x85\xD8\xB1\xD8\xAD\xD8\xA8\xD8\xA7",
                                    "_under_",
                                    "?=",
                                    "e\xCC\x81"};
enum { WORDS = sizeof(words) / sizeof(words[0]) };

/* A line of words; `ascii` leaves those of other scripts out. */
static char *random_line(uint32_t most, bool ascii) {
    char *line = keep(calloc(1, TEXT_MAX));
    uint32_t count = dice(most + 1);
    for (uint32_t i = 0; i < count && strlen(line) < TEXT_MAX / 2; i++) {
        const char *word = words[dice(WORDS)];
        if (ascii && ((unsigned char)word[0] >= 0x80 || strchr(word, '\xC3') != NULL || strchr(word, '\xCC') != NULL))
            word = "plain";
        if (i > 0)
            strcat(line, dice(12) == 0 ? "  " : " ");
        strcat(line, word);
    }
    return line;
}

/* Lines with what canonicalisation and transfer encodings look at: blanks at ends, empty lines, dots, long lines, other line ends. */
static char *random_body(void) {
    static const char *const ends[] = {"\n", "\n", "\n", "\r\n", " \n", "\t \n", "\n\n", "\r"};
    static const char *const starts[] = {"", "", "", ".", "..", "From ", "  ", "\t"};
    char *body = keep(calloc(1, TEXT_MAX * 2));
    uint32_t lines = dice(4) == 0 ? dice(2) : dice(30);
    for (uint32_t i = 0; i < lines && strlen(body) < TEXT_MAX; i++) {
        char *line = random_line(dice(10) == 0 ? 200 : 12, dice(2) == 0);
        strcat(body, starts[dice(8)]);
        if (strlen(body) + strlen(line) < TEXT_MAX)
            strcat(body, line);
        if (i + 1 < lines || dice(3) > 0)
            strcat(body, ends[dice(8)]);
    }
    for (uint32_t i = dice(4) == 0 ? dice(4) : 0; i > 0; i--)
        strcat(body, "\n");
    return body;
}

static char *random_address(void) {
    static const char *const addresses[] = {"ann@example.org",           "first.last+tag@mail.example.org", "\"quoted name\"@example.org",
                                            "o'neil@sub.example.org",    "bob@m\xC3\xBCller.example.org",   "x@a-b.example.org",
                                            "a=b@verp.lists.example.org"};
    return keep(strdup(addresses[dice(sizeof(addresses) / sizeof(addresses[0]))]));
}

static void random_mailbox(struct mailbox *mailbox) {
    mailbox->email = random_address();
    mailbox->name = dice(3) == 0 ? NULL : random_line(dice(5) == 0 ? 20 : 4, dice(2) == 0);
}

static json_t *mailbox_json(const struct mailbox *mailbox) {
    return json_pack("{s:s,s:s}", "email", mailbox->email, "name", mailbox->name == NULL ? "" : mailbox->name);
}

/* A header that the producer made, with every shape that a signer may meet. */
static char *random_raw(void) {
    static const char *const names[] = {"Subject", "subject",    "SUBJECT ",    "To",           "Cc",       "X-Thing",
                                        "List-Id", "References", "In-Reply-To", "Content-Type", "Received", "Reply-To"};
    char *raw = keep(calloc(1, TEXT_MAX * 4)), *body = random_body(), *at = raw;
    at += sprintf(at, "%s:%s<ann@%sexample.org>%s\n", dice(2) == 0 ? "From" : "FROM ", dice(2) == 0 ? " Ann\n\t " : " ",
                  dice(2) == 0 ? "news." : "", dice(2) == 0 ? " " : "");
    for (uint32_t i = dice(12); i > 0; i--) {
        char *value = random_line(8, true);
        at += sprintf(at, "%s:%s%s%s", names[dice(12)],
                      dice(2) == 0   ? ""
                      : dice(2) == 0 ? "  "
                                     : "\t",
                      value,
                      dice(3) == 0   ? "  \n\t folded \t value\n"
                      : dice(4) == 0 ? " \t\n"
                                     : "\n");
    }
    sprintf(at, "\n%s", body);
    return raw;
}

/* Lines of a raw body may be too long for SMTP, and fields may be there twice that a message has once; render refuses those, and the probe
 * tries again. */
static void random_job(struct job *job, struct job_recipient *recipient, json_t *asked) {
    static struct mailbox lists[3][MAILBOXES_MAX];
    static struct job_header headers[3];
    static struct job_attachment attachments[3];
    *job = (struct job){.queue = "normal", .history.origin = {seed, 1}, .recipients = recipient, .recipient_total = 1};
    *recipient = (struct job_recipient){.kind = dice(3) == 0 ? RECIPIENT_TO : RECIPIENT_PRIVATE};
    random_mailbox(&recipient->mailbox);
    random_mailbox(&job->from);
    json_object_set_new(asked, "from", mailbox_json(&job->from));
    if (dice(4) == 0) {
        job->raw = (uint8_t *)random_raw();
        job->raw_length = strlen((char *)job->raw);
        json_object_set_new(asked, "raw", json_true());
        return;
    }
    job->to = lists[0], job->cc = lists[1], job->reply_to = lists[2];
    job->to_count = dice(12) == 0 ? dice(MAILBOXES_MAX) : dice(6), job->cc_count = dice(3), job->reply_to_count = dice(2);
    const uint32_t counts[3] = {(uint32_t)job->to_count, (uint32_t)job->cc_count, (uint32_t)job->reply_to_count};
    for (int list = 0; list < 3; list++)
        for (uint32_t i = 0; i < counts[list]; i++)
            random_mailbox(&lists[list][i]);
    json_t *to = json_array();
    if (recipient->kind == RECIPIENT_PRIVATE)
        json_array_append_new(to, mailbox_json(&recipient->mailbox));
    for (uint32_t i = 0; i < job->to_count && recipient->kind != RECIPIENT_PRIVATE; i++)
        json_array_append_new(to, mailbox_json(&job->to[i]));
    json_object_set_new(asked, "to", to);
    if (dice(8) > 0) {
        job->subject = random_line(dice(4) == 0 ? 60 : 8, dice(3) == 0);
        json_object_set_new(asked, "subject", json_string(job->subject));
    }
    if (dice(5) > 0) {
        job->text = random_body();
        json_object_set_new(asked, "text", json_string(job->text));
    }
    if (dice(2) == 0) {
        job->html = random_body();
        json_object_set_new(asked, "html", json_string(job->html));
    }
    job->headers = headers;
    job->header_count = dice(4);
    json_t *custom = json_array();
    static char *names[] = {"X-One", "List-Id", "Feedback-ID"};
    for (uint32_t i = 0; i < job->header_count; i++) {
        headers[i] = (struct job_header){names[i], random_line(20, dice(2) == 0)};
        json_array_append_new(custom, json_pack("[s,s]", headers[i].name, headers[i].value));
    }
    json_object_set_new(asked, "headers", custom);
    if (dice(3) == 0)
        job->list_unsubscribe = "https://example.org/u?id=1";
    static char *files[] = {"a.pdf", "r\xC3\xA9sum\xC3\xA9 final.pdf", "with \"quotes\" (and more).bin",
                            "\xE6\x97\xA5\xE6\x9C\xAC\xE8\xAA\x9E\xE6\x97\xA5\xE6\x9C\xAC\xE8\xAA\x9E\xE6\x97\xA5.txt"};
    job->attachments = attachments;
    job->attachment_count = dice(3) == 0 ? dice(4) : 0;
    json_t *attached = json_array();
    for (uint32_t i = 0; i < job->attachment_count; i++) {
        size_t length = dice(5000);
        char *hex = asked == NULL ? NULL : calloc(1, length * 2 + 1);
        attachments[i] = (struct job_attachment){
            .filename = files[dice(4)], .content_type = "application/pdf", .bytes = keep(malloc(length + 1)), .length = length};
        if (dice(2) == 0) {
            attachments[i].is_inline = true;
            attachments[i].content_id = "image@example.org";
            attachments[i].content_type = "image/png";
        }
        for (size_t k = 0; k < length; k++) {
            attachments[i].bytes[k] = (uint8_t)dice(256);
            if (hex != NULL)
                sprintf(hex + 2 * k, "%02x", attachments[i].bytes[k]);
        }
        if (hex != NULL)
            json_array_append_new(attached, json_pack("{s:s,s:s}", "filename", attachments[i].filename, "bytes", hex));
        free(hex);
    }
    json_object_set_new(asked, "attachments", attached);
}

static void write_file(const char *directory, const char *name, const void *bytes, size_t length) {
    char path[512];
    snprintf(path, sizeof(path), "%s/%s", directory, name);
    FILE *file = fopen(path, "w");
    if (file == NULL || fwrite(bytes, 1, length, file) != length || fclose(file) != 0)
        die("cannot write", path);
}

struct world {
    struct config config;
    struct config_dkim_key key;
    char key_path[512], identity_path[512];
    struct dkim_keys *keys;
    struct identity *identity;
};

static void begin(struct world *world, const char *directory) {
    char error[512], *record = NULL;
    snprintf(world->key_path, sizeof(world->key_path), "%s/key.pem", directory);
    snprintf(world->identity_path, sizeof(world->identity_path), "%s/identity", directory);
    if (dkim_keygen(world->key_path, DKIM_RSA, 2048, &record, error, sizeof(error)) < 0)
        die("keygen", error);
    free(record);
    write_file(directory, "identity", "0123456789abcdef0123456789abcdef", 32);
    world->key = (struct config_dkim_key){.domain = "example.org", .selector = "probe", .key_file = world->key_path};
    world->config = (struct config){.dkim = &world->key, .dkim_count = 1, .max_message_bytes = 1 << 24};
    world->keys = dkim_keys_load(&world->config, NULL, NULL, error, sizeof(error));
    world->identity = identity_load(world->identity_path);
    if (world->keys == NULL || world->identity == NULL)
        die("keys", error);
}

/* Keys as they sign together, by selector; test_dkim makes NAME.pem for each. Large ones are slow: they sign few messages. */
static const struct signing {
    uint32_t every, at; /* of so many messages, this one */
    const char *selectors[KEYS_MAX];
} signings[] = {{50, 7, {"r4096"}},
                {50, 17, {"r3072", "edward"}},
                {10, 3, {"r1024", "edward"}},
                {10, 5, {"r2048", "other"}},
                {1, 0, {"r2048", "edward"}}};
enum { SIGNINGS = sizeof(signings) / sizeof(signings[0]) };

struct signers {
    struct config_dkim_key keys[SIGNINGS][KEYS_MAX];
    char paths[SIGNINGS][KEYS_MAX][512];
    struct dkim_keys *loaded[SIGNINGS];
    struct dkim_signer *signers[SIGNINGS];
    int counts[SIGNINGS];
    unsigned contents, with_pieces; /* messages of shared contents, and those of them that refer to what they share */
};

static void signers_begin(struct signers *all, const char *directory) {
    char error[512] = "";
    for (int i = 0; i < SIGNINGS; i++) {
        int count = 0;
        for (; count < KEYS_MAX && signings[i].selectors[count] != NULL; count++) {
            snprintf(all->paths[i][count], sizeof(all->paths[i][count]), "%s/%s.pem", directory, signings[i].selectors[count]);
            all->keys[i][count] = (struct config_dkim_key){
                .domain = "example.org", .selector = (char *)(uintptr_t)signings[i].selectors[count], .key_file = all->paths[i][count]};
        }
        struct config config = {.dkim = all->keys[i], .dkim_count = (uint32_t)count, .max_message_bytes = 1 << 24};
        all->counts[i] = count;
        all->loaded[i] = dkim_keys_load(&config, NULL, NULL, error, sizeof(error));
        if (all->loaded[i] == NULL)
            die("keys", error);
        all->signers[i] = dkim_signer_create(all->loaded[i]);
    }
}

static void signers_end(struct signers *all) {
    for (int i = 0; i < SIGNINGS; i++) {
        dkim_signer_free(all->signers[i]);
        dkim_keys_free(all->loaded[i]);
    }
}

/* A message that waits for its signatures. */
struct pending {
    struct message message;
    json_t *asked; /* NULL: not told */
};

static void pending_write(struct pending *pending) {
    struct message *message = &pending->message;
    if (message_flatten(message) != 0)
        die("memory", "too little");
    char *text = pending->asked == NULL ? strdup("") : json_dumps(pending->asked, 0);
    printf("%zu %zu\n", (size_t)message->length, strlen(text));
    fwrite(message->bytes + message->start, 1, message->length, stdout);
    if (fputs(text, stdout) < 0)
        die("writing", "standard output");
    free(text);
    message_free(&pending->message);
    json_decref(pending->asked);
    free(pending);
}

static void flush(struct signers *all, int i, bool rest) {
    void *user;
    int status;
    dkim_flush(all->signers[i], rest);
    while (dkim_next(all->signers[i], &user, &status)) {
        if (status != 0)
            die("signing", strerror(-status));
        pending_write(user);
    }
}

/* Most wait for company, as in the press; some are signed by themselves. */
static void sign_one(struct signers *all, unsigned number, struct pending *pending) {
    int i = 0, count;
    while (number % signings[i].every != signings[i].at)
        i++;
    bool alone = dice(4) == 0;
    uint64_t now = (uint64_t)time(NULL);
    count = alone ? dkim_sign(all->signers[i], &pending->message, NULL, now)
                  : dkim_begin(all->signers[i], &pending->message, NULL, now, pending);
    if (count != all->counts[i])
        die("signing", pending->message.from_domain);
    if (alone)
        pending_write(pending);
    else
        flush(all, i, dice(40) == 0);
}

/* False where a line of a raw body is too long for SMTP, which render refuses: another job is made then. */
static bool render_one(const struct job *job, unsigned number, const struct identity *identity, struct message *message) {
    char error[256];
    int result = render_message(job, 0, 1700000000 + number, identity, 1 << 24, message, error, sizeof(error));
    if (result != 0 && (job->raw == NULL || (strstr(error, "998") == NULL && strstr(error, "allows one") == NULL)))
        die("rendering", error);
    return result == 0;
}

/* A text with a variable in it. Some are in one script and so long that base64 has stretches (control/render/stretch.h). */
static char *random_template(void) {
    char *text = keep(malloc(2 * TEXT_MAX * 3));
    if (dice(3) > 0) {
        sprintf(text, "%s\n{{v}}\n%s", random_body(), dice(2) == 0 ? random_body() : "");
        return text;
    }
    static const char *const script[] = {"\xE6\x97\xA5\xE6\x9C\xAC\xE8\xAA\x9E", "\xD0\x9F\xD1\x80\xD0\xB8\xD0\xB2\xD0\xB5\xD1\x82 ",
                                         "\xD9\x85\xD8\xB1\xD8\xAD\xD8\xA8\xD8\xA7 "};
    const char *word = script[dice(3)];
    size_t used = 0;
    for (uint32_t tags = 1 + dice(3), at = 0; at <= tags; at++) {
        for (size_t end = used + dice(TEXT_MAX); used < end;)
            used += (size_t)sprintf(text + used, "%s%s", word, dice(20) == 0 ? "\n" : "");
        used += (size_t)sprintf(text + used, "%s", at < tags ? "{{v}}" : "");
    }
    return text;
}

/* Some recipients of one content: what their bodies have in common is referred to, and its hash remembered. Returns how many. */
static unsigned stream_content(struct signers *all, struct job *job, struct job_recipient *recipient, unsigned number, unsigned most,
                               const struct identity *identity) {
    char id[32];
    if (job->raw == NULL) {
        *(dice(2) == 0 ? &job->text : &job->html) = random_template();
        if (dice(2) == 0)
            job->subject = "Hello {{v}}";
    }
    snprintf(id, sizeof(id), "content-%u", number);
    job->content_id = id;
    struct job fields = *job;
    fields.recipients = NULL;
    struct content content = {.references = 1, .fields = &fields, .prepared = render_prepare(&fields, id, identity)};
    job->content = &content;
    unsigned count = 1 + dice(20);
    count = count < most ? count : most;
    for (unsigned i = 0; i < count; i++) {
        struct pending *pending = calloc(1, sizeof(*pending));
        json_t *data = json_pack("{s:s}", "v", random_line(8, true));
        job->history.origin.seq = i + 1;
        recipient->kind = RECIPIENT_PRIVATE;
        recipient->merge_data = json_dumps(data, 0);
        message_init(&pending->message);
        if (!render_one(job, number + i, identity, &pending->message)) { /* a raw one that cannot be sent: to nobody, then */
            count = 0;
            message_free(&pending->message);
            free(pending);
            free(recipient->merge_data);
            json_decref(data);
            break;
        }
        all->contents++;
        all->with_pieces += pending->message.piece_count > 0;
        sign_one(all, number + i, pending);
        free(recipient->merge_data);
        json_decref(data);
    }
    for (int i = 0; i < SIGNINGS; i++)
        flush(all, i, true); /* before what they refer to goes */
    render_prepared_free((struct render_prepared *)(uintptr_t)content.prepared);
    return count;
}

static void stream(const char *directory, unsigned count, unsigned asked_count) {
    static struct signers all;
    char path[512];
    signers_begin(&all, directory);
    snprintf(path, sizeof(path), "%s/identity", directory);
    struct identity *identity = identity_load(path);
    if (identity == NULL)
        die("no identity", path);
    for (unsigned i = 0; i < count;) {
        struct job job;
        struct job_recipient recipient;
        struct message repeat;
        struct pending *pending = calloc(1, sizeof(*pending));
        pending->asked = i < asked_count ? json_object() : NULL;
        message_init(&pending->message);
        message_init(&repeat);
        random_job(&job, &recipient, pending->asked);
        bool shares = dice(40) == 0;
        if (!shares && render_one(&job, i, identity, &pending->message)) {
            const struct message *message = &pending->message;
            if (pending->asked != NULL && (!render_one(&job, i, identity, &repeat) || repeat.length != message->length ||
                                           memcmp(repeat.bytes + repeat.start, message->bytes + message->start, message->length) != 0))
                die("a repeat", "is not the same message");
            sign_one(&all, i++, pending);
        } else {
            json_decref(pending->asked);
            message_free(&pending->message);
            free(pending);
        }
        if (shares)
            i += stream_content(&all, &job, &recipient, i, count - i, identity);
        message_free(&repeat);
        drop_kept();
    }
    for (int i = 0; i < SIGNINGS; i++)
        flush(&all, i, true);
    if (RENDER_SHARES && all.contents >= CONTENTS_ENOUGH && all.with_pieces == 0)
        die("contents", "have shared nothing");
    signers_end(&all);
    identity_free(identity);
}

/* CPU time of all threads: rates are those of a core that nothing else uses. */
static double now_s(void) {
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void speed(const char *directory, double seconds) {
    struct world world;
    begin(&world, directory);
    struct job_recipient recipient = {.mailbox = {.email = "bob@example.net"}, .kind = RECIPIENT_PRIVATE};
    char text[4096] = "";
    for (int i = 0; i < 60; i++)
        strcat(text, "Some words of prose that fill a line as mail of this kind has.\n");
    struct job job = {.queue = "normal",
                      .from = {.email = "ann@example.org"},
                      .subject = "Hello",
                      .text = text,
                      .recipients = &recipient,
                      .recipient_total = 1};
    struct dkim_signer *signer = dkim_signer_create(world.keys);
    struct message message;
    char error[256];
    message_init(&message);
    if (render_message(&job, 0, 1700000000, world.identity, 1 << 20, &message, error, sizeof(error)) != 0)
        die("rendering", error);
    struct message fresh = message;
    unsigned signatures = 0;
    double from = now_s(), to;
    do {
        message = fresh;
        if (dkim_sign(signer, &message, NULL, 1700000000) != 1)
            die("signing", "failed");
        signatures++;
    } while ((to = now_s()) - from < seconds);
    printf("signatures of 4 KB messages, RSA-2048, verified: %.0f a CPU second\n", signatures / (to - from));
    message_free(&fresh);
    dkim_signer_free(signer);

    struct press_config press_config = {
        .threads = 1, .capacity = PRESS_CAPACITY, .config = &world.config, .identity = world.identity, .keys = world.keys, .shards = 1};
    struct press *press = press_create(&press_config);
    static struct press_task tasks[PRESS_CAPACITY];
    unsigned done = 0, under_way = 0;
    for (int i = 0; i < PRESS_CAPACITY; i++) {
        tasks[i].job = &job;
        tasks[i].date_s = 1700000000;
        under_way += press_submit(press, 0, &tasks[i]);
    }
    from = now_s();
    while (under_way > 0) {
        struct pollfd wait = {.fd = press_descriptor(press, 0), .events = POLLIN};
        if (poll(&wait, 1, 10000) != 1)
            die("the press", "stands still");
        bool more = now_s() - from < seconds;
        for (struct press_task *task = press_collect(press, 0), *next; task != NULL; task = next) {
            next = task->next;
            if (task->status != 0)
                die("the press", task->error);
            done++;
            under_way--;
            message_free(&task->message);
            if (more)
                under_way += press_submit(press, 0, task);
        }
    }
    printf("messages rendered and signed by a press of one thread: %.0f a CPU second\n", done / (now_s() - from));
    press_destroy(press);
    dkim_keys_free(world.keys);
    identity_free(world.identity);
}

int main(int argc, char **argv) {
    if (argc == 6 && strcmp(argv[1], "stream") == 0) {
        seed = strtoull(argv[4], NULL, 10);
        stream(argv[2], (unsigned)strtoul(argv[3], NULL, 10), (unsigned)strtoul(argv[5], NULL, 10));
    } else if (argc == 4 && strcmp(argv[1], "speed") == 0) {
        speed(argv[2], strtod(argv[3], NULL));
    } else {
        fprintf(stderr, "usage: dkim_probe stream DIRECTORY COUNT SEED ASKED | speed DIRECTORY SECONDS\n");
        return 2;
    }
    return 0;
}
