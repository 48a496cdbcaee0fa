/* job_fuzz.c: libFuzzer on the decoder of jobs: anybody who can write to Redis can write anything. */
#include "control/fetch/fetch.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const struct config config = {.max_message_bytes = 1 << 20, .max_recipients_per_job = 500};
    char error[512];
    struct job *job = job_decode(data, size, &config, error, sizeof error);
    if (job) {
        if (job->pending_count == 0 || job->pending_count > job->recipient_total || !job->from.email) {
            abort();
        }
        job_release(job);
    } else if (!error[0]) {
        abort();
    }
    return 0;
}
