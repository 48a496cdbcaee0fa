/* rows_fuzz.c: libFuzzer on files of recipients, which customers write: CSV and JSON Lines. The first byte chooses --map and how often the
 * rest is repeated, so that some inputs are longer than the buffer. What is called plain, which the upload does not decode, the decoder
 * takes. */
#include "control/cli/campaign_rows.h"
#include "control/fetch/fetch.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { LONG_BYTES = ROWS_BLOCK_BYTES + ROWS_BLOCK_BYTES / 4, DECODED_MAX = 50 };

static void must(bool condition) {
    if (!condition) {
        abort();
    }
}

/* Is the row, as the only recipient of a job, taken? */
static bool decodes(const struct writer *row) {
    static const struct config config = {.max_message_bytes = 1 << 20, .max_recipients_per_job = 500};
    static const char prefix[] = "{\"from\":\"sender@example.org\",\"text\":\"-\",\"recipients\":[";
    struct writer text = {.limit = SIZE_MAX / 4};
    char error[512];
    writer_bytes(&text, prefix, sizeof prefix - 1);
    writer_bytes(&text, row->bytes, row->at);
    writer_bytes(&text, "]}", 2);
    struct job *job = job_decode(text.bytes, text.at, &config, error, sizeof error);
    if (job) { /* nothing in a row reaches what stands beside the recipients */
        must(job->recipient_total == 1 && !job->subject && !job->html && !job->envelope_sender && !job->tenant && !job->pool &&
             !job->tag_count);
    }
    job_release(job);
    free(text.bytes);
    return job != NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char *const maps[] = {"a=to", "b=metadata.k", "c=-"};
    if (size < 2) {
        return 0;
    }
    int file = memfd_create("rows", MFD_CLOEXEC);
    must(file >= 0);
    size_t times = data[0] == 0xff ? LONG_BYTES / (size - 1) + 1 : 1, length = (size - 1) * times, decoded = 0;
    for (size_t i = 0; i < times && (i == 0 || size > 64); i++) {
        must(write(file, data + 1, size - 1) == (ssize_t)(size - 1));
    }
    length = (size_t)lseek(file, 0, SEEK_CUR);
    must(lseek(file, 0, SEEK_SET) == 0);
    struct rows *rows = malloc(sizeof *rows);
    struct writer out = {.limit = ROW_MAX_BYTES * 4};
    char error[ROW_ERROR_BYTES] = "";
    bool opened = rows_open(rows, file, maps, data[0] % 4, error), sampled = false;
    must(opened || error[0] != '\0');
    for (uint64_t taken = 0, lines = 0; opened;) {
        uint64_t line = 0;
        out.at = 0;
        out.error = 0;
        enum row_result result = rows_next(rows, &out, &line, error);
        must(result != ROW_FAULT && (result != ROW_BAD || error[0] != '\0'));
        if (result == ROW_END) {
            must(rows->taken == length); /* nothing is left out */
            break;
        }
        must(rows->taken > taken && line > 0 && line >= lines && rows->begin <= rows->end && rows->end <= rows->room);
        taken = rows->taken;
        lines = line;
        if (result == ROW_GOOD && decoded++ < DECODED_MAX) {
            bool good = decodes(&out);
            must(good || !sampled || !rows->plain);
            sampled |= good;
        }
    }
    rows_close(rows);
    free(rows);
    free(out.bytes);
    close(file);
    return 0;
}
