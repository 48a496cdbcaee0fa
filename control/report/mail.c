/* mail.c: multipart/report with the report as attachment. */
#include "mail.h"

#include "document.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <zlib.h>

enum { GZIP_WINDOW_BITS = 15 + 16, GZIP_MEMORY = 8, DAY_S = 86400, LINE_CHARACTERS = 76, ADDRESS_BYTES = 320 };
static const char TENANT[] = "tls-reports", ID_HEAD[] = "tls-report-";

uint8_t *report_gzip(const json_t *document, size_t *bytes) {
    char *text = json_dumps(document, JSON_COMPACT | JSON_ENSURE_ASCII);
    z_stream stream = {0};
    uint8_t *out = NULL;
    *bytes = 0;
    if (!text || deflateInit2(&stream, Z_BEST_COMPRESSION, Z_DEFLATED, GZIP_WINDOW_BITS, GZIP_MEMORY, Z_DEFAULT_STRATEGY) != Z_OK) {
        free(text);
        return NULL;
    }
    size_t room = deflateBound(&stream, strlen(text));
    out = malloc(room);
    stream.next_in = (Bytef *)text;
    stream.avail_in = (uInt)strlen(text);
    stream.next_out = out;
    stream.avail_out = (uInt)room;
    if (!out || deflate(&stream, Z_FINISH) != Z_STREAM_END) {
        free(out);
        out = NULL;
    } else {
        *bytes = stream.total_out;
    }
    deflateEnd(&stream);
    free(text);
    return out;
}

static int hex(char c) {
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

int report_mailto(const char *uri, char *out, size_t out_bytes) {
    size_t used = 0, ats = 0;
    if (strncasecmp(uri, "mailto:", 7) != 0)
        return -EINVAL;
    for (const char *c = uri + 7; *c && *c != '?'; c++) {
        int byte = (unsigned char)*c;
        if (*c == '%') {
            int high = hex(c[1]), low = high < 0 ? -1 : hex(c[2]);
            if (low < 0)
                return -EINVAL;
            byte = high << 4 | low;
            c += 2;
        }
        if (byte <= 0x20 || byte >= 0x7f || strchr("<>(),;:\\\"[]", byte) || used + 1 >= out_bytes)
            return -EINVAL;
        ats += byte == '@';
        out[used++] = (char)byte;
    }
    out[used] = '\0';
    return ats == 1 && out[0] != '@' && out[used - 1] != '@' ? 0 : -EINVAL;
}

static void write_base64(FILE *out, const uint8_t *bytes, size_t length) {
    static const char DIGITS[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    size_t column = 0;
    for (size_t i = 0; i < length; i += 3) {
        uint32_t group = (uint32_t)bytes[i] << 16;
        group |= i + 1 < length ? (uint32_t)bytes[i + 1] << 8 : 0;
        group |= i + 2 < length ? bytes[i + 2] : 0;
        fputc(DIGITS[group >> 18], out);
        fputc(DIGITS[group >> 12 & 63], out);
        fputc(i + 1 < length ? DIGITS[group >> 6 & 63] : '=', out);
        fputc(i + 2 < length ? DIGITS[group & 63] : '=', out);
        column += 4;
        if (column == LINE_CHARACTERS) {
            fputs("\r\n", out);
            column = 0;
        }
    }
    if (column > 0)
        fputs("\r\n", out);
}

/* RFC 8460 5.1: SUBMITTER!DOMAIN!BEGIN!END.json.gz, times in seconds. */
static void write_file_name(FILE *out, const char *submitter, const char *domain, const char *day) {
    struct tm parts = {0};
    strptime(day, "%Y-%m-%d", &parts);
    long long begin = (long long)timegm(&parts);
    fprintf(out, "%s!%s!%lld!%lld.json.gz", submitter, domain, begin, begin + DAY_S - 1);
}

static char *message_text(const struct config *config, const char *domain, const char *day, const uint8_t *gzip, size_t gzip_bytes,
                          const char *to) {
    char submitter[REPORT_DOMAIN_BYTES], *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    if (!out)
        return NULL;
    report_submitter(config, submitter);
    fprintf(out, "From: %s\r\nTo: <%s>\r\n", config->tls_reports.from, to);
    fprintf(out, "Subject: Report Domain: %s\r\n Submitter: %s\r\n Report-ID: <%s_%s@%s>\r\n", domain, submitter, day, domain, submitter);
    fprintf(out, "TLS-Report-Domain: %s\r\nTLS-Report-Submitter: %s\r\nAuto-Submitted: auto-generated\r\nMIME-Version: 1.0\r\n", domain,
            submitter);
    fprintf(out, "Content-Type: multipart/report; report-type=\"tlsrpt\";\r\n boundary=\"=_tlsrpt_%s\"\r\n\r\n", day);
    fprintf(out, "--=_tlsrpt_%s\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\n", day);
    fprintf(out, "This is an aggregate report about TLS between %s and %s\r\non %s (RFC 8460). The report itself is attached.\r\n\r\n",
            submitter, domain, day);
    fprintf(out, "--=_tlsrpt_%s\r\nContent-Type: application/tlsrpt+gzip\r\nContent-Transfer-Encoding: base64\r\n", day);
    fprintf(out, "Content-Disposition: attachment;\r\n filename=\"");
    write_file_name(out, submitter, domain, day);
    fprintf(out, "\"\r\n\r\n");
    write_base64(out, gzip, gzip_bytes);
    fprintf(out, "\r\n--=_tlsrpt_%s--\r\n", day);
    if (fclose(out) != 0) {
        free(text);
        return NULL;
    }
    return text;
}

char *report_mail(const struct config *config, const char *domain, const char *day, const uint8_t *gzip, size_t gzip_bytes, const char *to,
                  const char *job_id) {
    char *message = message_text(config, domain, day, gzip, gzip_bytes, to);
    json_t *job = message ? json_pack("{s:s, s:s, s:s, s:s, s:s, s:s}", "id", job_id, "from", config->tls_reports.from, "envelope_sender",
                                      "", "to", to, "tenant", TENANT, "raw", message)
                          : NULL;
    char *text = job ? json_dumps(job, JSON_COMPACT) : NULL;
    json_decref(job);
    free(message);
    return text;
}

bool report_is_mail(const struct job *job) {
    return job->tenant && strcmp(job->tenant, TENANT) == 0 && job->id && strncmp(job->id, ID_HEAD, sizeof ID_HEAD - 1) == 0 &&
           job->envelope_sender && job->envelope_sender[0] == '\0';
}
