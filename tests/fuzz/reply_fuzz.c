/* reply_fuzz.c: any bytes, cut anywhere: the reply parser stays within its bounds and says the same wherever the network cut. The first
 * byte of the input chooses the length of the parts. */
#include "dataplane/smtp/reply.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct result {
    enum reply_status status;
    uint32_t consumed;
    struct capabilities capabilities;
};

static struct result parse(struct reply *reply, const uint8_t *bytes, uint32_t length, uint32_t part) {
    struct result result = {.status = REPLY_MORE};
    reply_begin(reply, &result.capabilities);
    while (result.consumed < length && result.status == REPLY_MORE) {
        uint32_t some = length - result.consumed < part ? length - result.consumed : part, taken;
        uint8_t *copy = malloc(some); /* no more than the part, so that a read past it is seen */
        if (!copy)
            abort();
        memcpy(copy, bytes + result.consumed, some);
        result.status = reply_take(reply, copy, some, &taken);
        free(copy);
        if (taken > some || (result.status == REPLY_MORE && taken != some))
            abort();
        result.consumed += taken;
    }
    return result;
}

static void check(const struct reply *reply, enum reply_status status) {
    if (reply->text_length > REPLY_TEXT_MAX || reply->line_length > REPLY_LINE_MAX || reply->lines > REPLY_LINES_MAX)
        abort();
    for (uint32_t i = 0; i < reply->text_length; i++) {
        if ((unsigned char)reply->text[i] < 0x20 || reply->text[i] == 0x7f)
            abort();
    }
    if (status != REPLY_DONE)
        return;
    if (reply->code < 100 || reply->code > 599 || (reply->enhanced[0] && reply->enhanced[0] != reply->code / 100))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct reply whole, cut;
    if (size < 2 || size > 1 << 16)
        return 0;
    struct result first = parse(&whole, data + 1, (uint32_t)size - 1, (uint32_t)size);
    struct result second = parse(&cut, data + 1, (uint32_t)size - 1, 1u + data[0] % 64);
    check(&whole, first.status);
    check(&cut, second.status);
    if (first.status != second.status)
        abort();
    /* Garbage is seen at its first byte when it comes alone, and at its line's end when the line is whole. */
    if (first.status == REPLY_DONE &&
        (first.consumed != second.consumed || whole.code != cut.code || whole.text_length != cut.text_length ||
         memcmp(whole.text, cut.text, whole.text_length) != 0 || memcmp(whole.enhanced, cut.enhanced, sizeof(cut.enhanced)) != 0 ||
         memcmp(&first.capabilities, &second.capabilities, sizeof(first.capabilities)) != 0))
        abort();
    return 0;
}
