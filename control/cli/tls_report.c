/* tls_report.c: `bypost tls-report`: what was counted of TLS with other domains' servers, and its reports sent by hand (RFC 8460). */
#include "control/report/mail.h"
#include "control/report/document.h"
#include "control/route/domain.h"
#include "control/route/https.h"
#include "control/route/ip.h"
#include "operator.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const char help[] =
    "Usage: bypost tls-report [--day YYYY-MM-DD]             the domains that reports are counted for\n"
    "       bypost tls-report --domain DOMAIN [--day DAY]    the report of one, as JSON\n"
    "       bypost tls-report --domain DOMAIN --send         sends it to where the domain wants it\n\n"
    "TLS reports (RFC 8460) tell other domains how TLS with their servers went. bypost counts and sends them once a day when\n"
    "`tls_reports: {from: ADDRESS}` is in bypost.yaml; counts are kept for eight days, and a day is one of UTC.\n\n"
    "      --day DAY          2026-11-22 (today)\n"
    "      --domain DOMAIN    as recipients have it\n"
    "      --send             mailto: through bypost's own queue, https: by POST; once more also where it was sent before\n"
    "      --redis ADDRESS    HOST:PORT or unix:/PATH, instead of the configuration's\n"
    "  -c, --config FILE      the configuration (/etc/bypost/bypost.yaml)\n"
    "      --help, --version\n\n"
    "Exit status: 0 shown or sent, 1 nothing was counted or somebody does not take it, 64 usage, 69 Redis does not answer, 78 the\n"
    "configuration has errors.\n";
static const char name[] = "tls-report";
enum { ADDRESS_BYTES = 320, POST_LIMIT_S = 90 };

static size_t domains_list(struct operator_call *call, const char *day, bool sent) {
    char key[REPORT_KEY_BYTES];
    report_day_key(call->config, day, sent, key);
    const char *argv[] = {"SMEMBERS", key};
    redisReply *reply = operator_run(call, 2, argv);
    size_t count = reply && reply->type == REDIS_REPLY_ARRAY ? reply->elements : 0;
    for (size_t i = 0; i < count; i++)
        cli_print(stdout, "%-40s %s\n", operator_text(reply, i), sent ? "sent" : "to be sent");
    if (reply)
        freeReplyObject(reply);
    return count;
}

static int domains_show(struct operator_call *call, const char *day) {
    size_t shown = domains_list(call, day, false);
    shown += call->code == CLI_OK ? domains_list(call, day, true) : 0;
    if (shown == 0 && call->code == CLI_OK)
        fprintf(stderr, "bypost %s: nothing was counted on %s%s.\n", name, day,
                call->config->tls_reports.enabled ? "" : "; `tls_reports: {from: ADDRESS}` in bypost.yaml switches it on");
    return call->code;
}

static int mail_send(struct operator_call *call, const char *domain, const char *day, const char *uri, const uint8_t *gzip, size_t bytes) {
    char to[ADDRESS_BYTES], id[REPORT_ID_BYTES];
    if (report_mailto(uri, to, sizeof to) != 0)
        return cli_complain(CLI_FAILED, name, "%s is no address that mail can go to.", uri);
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    snprintf(id, sizeof id, "tls-report-%s-%s-hand-%lld.%09ld", day, domain, (long long)now.tv_sec, now.tv_nsec);
    char *job = report_mail(call->config, domain, day, gzip, bytes, to, id);
    char *stream = cli_key(call->config, 0, "q:normal"), *base = cli_key(call->config, 0, "");
    const char *argv[] = {"FCALL", "bypost_submit", "1", stream, base, "normal", job, "1", id, ""};
    redisReply *reply = job && stream && base ? operator_run(call, 10, argv) : NULL;
    if (reply)
        printf("%s: queued as %s\n", to, operator_text(reply, 0));
    if (reply)
        freeReplyObject(reply);
    free(job);
    free(stream);
    free(base);
    return call->code;
}

static void on_posted(void *context, const struct https_answer *answer) {
    *(struct https_answer *)context = *answer;
}

static void on_late(evutil_socket_t fd, short what, void *context) {
    event_base_loopbreak(context);
}

static bool may_ask(void *context, const char *host, const struct config_address *address) {
    const struct config *config = context;
    return domain_is_reserved(host) || (address ? !ip_prohibited(address) && !ip_is_private(address) : !config->sandbox);
}

static int post_send(const struct config *config, const char *domain, const char *uri, const uint8_t *gzip, size_t bytes) {
    char error[CLI_ERROR_BYTES] = "out of memory";
    struct https_answer answer = {.status = HTTPS_FAILED};
    struct dns_settings settings = {
        .servers = config->dns.servers, .server_count = config->dns.server_count, .timeout_ms = config->dns.timeout_ms};
    const struct https_guard guard = {.may = may_ask, .context = (void *)(uintptr_t)config};
    struct event_base *base = event_base_new();
    struct dns *dns = base ? dns_create(base, &settings, error, sizeof error) : NULL;
    struct https *https = dns ? https_create(base, dns, config->tls.ca_file, &guard) : NULL;
    struct https_request request = {.url = uri,
                                    .domain = domain,
                                    .body = (const char *)gzip,
                                    .body_bytes = bytes,
                                    .content_type = "application/tlsrpt+gzip",
                                    .done = on_posted,
                                    .context = &answer};
    struct event *late = https ? evtimer_new(base, on_late, base) : NULL;
    struct timeval limit = {.tv_sec = POST_LIMIT_S};
    snprintf(answer.why, sizeof answer.why, "no answer in time");
    int rc = late ? https_start(https, &request) : -ENOMEM;
    if (rc != 0)
        snprintf(answer.why, sizeof answer.why,
                 rc == -EPERM ? "its host is public and the sandbox is on, or the other way round" : "it is no https address");
    if (rc == 0) {
        event_add(late, &limit);
        while (answer.status == HTTPS_FAILED && strcmp(answer.why, "no answer in time") == 0 && !event_base_got_break(base))
            event_base_loop(base, EVLOOP_ONCE);
    }
    if (late)
        event_free(late);
    https_destroy(https);
    dns_destroy(dns);
    if (base)
        event_base_free(base);
    if (!https)
        return cli_complain(CLI_FAILED, name, "%s", error);
    if (answer.status != HTTPS_GOOD)
        return cli_complain(CLI_FAILED, name, "%s does not take it: %s.", uri, answer.why);
    printf("%s: taken\n", uri);
    return CLI_OK;
}

static int report_send(struct operator_call *call, const char *domain, const char *day, const json_t *document, const char *rua) {
    size_t bytes;
    uint8_t *gzip = report_gzip(document, &bytes);
    char *list = strdup(rua), *save;
    int code = gzip && list ? CLI_OK : CLI_FAILED;
    for (char *uri = code == CLI_OK ? strtok_r(list, " ", &save) : NULL; uri; uri = strtok_r(NULL, " ", &save)) {
        int one = strncasecmp(uri, "mailto:", 7) == 0 ? mail_send(call, domain, day, uri, gzip, bytes)
                                                      : post_send(call->config, domain, uri, gzip, bytes);
        code = code == CLI_OK ? one : code;
    }
    free(list);
    free(gzip);
    return code;
}

static int domain_do(struct operator_call *call, const char *domain, const char *day, bool send) {
    char key[REPORT_KEY_BYTES];
    report_domain_key(call->config, day, domain, key);
    const char *argv[] = {"HGETALL", key};
    redisReply *reply = operator_run(call, 2, argv);
    if (!reply)
        return call->code;
    size_t count = reply->type == REDIS_REPLY_ARRAY ? reply->elements / 2 : 0;
    struct report_field *fields = calloc(count + 1, sizeof *fields);
    for (size_t i = 0; fields && i < count; i++)
        fields[i] = (struct report_field){operator_text(reply, 2 * i), operator_text(reply, 2 * i + 1)};
    const char *rua = fields ? report_addresses(fields, count) : NULL;
    json_t *document = fields ? report_document(call->config, domain, day, fields, count) : NULL;
    int code = CLI_OK;
    if (!document) {
        code = cli_complain(CLI_FAILED, name, "nothing was counted for %s on %s.", domain, day);
    } else if (!send) {
        json_dumpf(document, stdout, JSON_INDENT(2));
        puts("");
    } else if (!call->config->tls_reports.from) {
        code = cli_complain(CLI_CONFIG, name, "whom the report is from is not known; write `tls_reports: {from: ADDRESS}` in bypost.yaml.");
    } else if (!rua) {
        code = cli_complain(CLI_FAILED, name, "%s does not say where it wants reports.", domain);
    } else {
        code = report_send(call, domain, day, document, rua);
    }
    json_decref(document);
    free(fields);
    freeReplyObject(reply);
    return code;
}

static int tls_report_run(int argc, char **argv) {
    enum { OPTION_DAY = 1, OPTION_DOMAIN, OPTION_SEND, OPTION_REDIS };
    static const struct option options[] = {
        {"day", required_argument, NULL, OPTION_DAY}, {"domain", required_argument, NULL, OPTION_DOMAIN},
        {"send", no_argument, NULL, OPTION_SEND},     {"redis", required_argument, NULL, OPTION_REDIS},
        {"config", required_argument, NULL, 'c'},     {NULL, 0, NULL, 0}};
    const char *config_path = NULL, *redis = NULL, *domain = NULL;
    char day[REPORT_DAY_BYTES];
    bool send = false;
    report_day((uint64_t)time(NULL), day);
    for (int option; (option = getopt_long(argc, argv, "c:", options, NULL)) != -1;) {
        switch (option) {
        case OPTION_DAY:
            if (!report_day_valid(optarg))
                return cli_complain(CLI_USAGE, name, "--day: '%s' is no day; write it like 2026-11-22.", optarg);
            snprintf(day, sizeof day, "%s", optarg);
            break;
        case OPTION_DOMAIN:
            domain = optarg;
            break;
        case OPTION_SEND:
            send = true;
            break;
        case OPTION_REDIS:
            redis = optarg;
            break;
        case 'c':
            config_path = optarg;
            break;
        default:
            return cli_usage(name);
        }
    }
    if (optind < argc)
        return cli_complain(CLI_USAGE, name, "'%s' is one too many; `bypost tls-report --help` shows the options.", argv[optind]);
    if (send && !domain)
        return cli_complain(CLI_USAGE, name, "--send needs --domain.");
    struct operator_call call = {0};
    if (!operator_open(&call, name, config_path, redis))
        return call.code;
    int code = domain ? domain_do(&call, domain, day, send) : domains_show(&call, day);
    operator_close(&call);
    return code;
}

const struct cli_command tls_report_command = {.name = "tls-report",
                                               .summary = "shows and sends reports about TLS with other domains (RFC 8460)",
                                               .help = help,
                                               .run = tls_report_run};
