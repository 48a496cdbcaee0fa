/* campaign_upload.h: numbered chunks into a campaign, several in flight; what is there already is left out. */
#ifndef CONTROL_CLI_CAMPAIGN_UPLOAD_H
#define CONTROL_CLI_CAMPAIGN_UPLOAD_H

#include "campaign.h"
#include "control/render/writer.h"

enum { UPLOAD_WINDOW = 64, UPLOAD_WINDOW_BYTES = 8 << 20, UPLOAD_SHARD_BITMAP_MAX = 2 << 20 };

struct upload_chunk {
    struct writer job;
    uint32_t shard, recipients;
    uint64_t number;
};

struct upload {
    struct campaign_client *client;
    const char *name, *content;
    char *streams[CAMPAIGN_SHARDS_MAX];
    uint8_t *bitmaps[CAMPAIGN_SHARDS_MAX]; /* what was there at the start */
    size_t bitmap_bytes[CAMPAIGN_SHARDS_MAX];
    struct upload_chunk window[UPLOAD_WINDOW]; /* a ring: the answers come in this order */
    uint32_t oldest, in_flight;
    size_t in_flight_bytes;
    uint64_t chunks, recipients;                       /* taken over by this run */
    uint64_t chunks_before, recipients_before;         /* there already */
    void (*waiting)(void *context, const char *error); /* the queue is full: every time before it is tried again */
    void *context;
};

/* Asks every shard which chunks it has. */
int upload_begin(struct upload *upload, struct campaign_client *client, const char *name, const char *content);
/* Sends a chunk: prefix, recipients (objects with commas between them), suffix. Waits while the queue is full. */
int upload_chunk(struct upload *upload, uint64_t number, const char *prefix, const uint8_t *recipients, size_t length, uint32_t count);
/* Waits for what is in flight. */
int upload_finish(struct upload *upload);
void upload_free(struct upload *upload);

#endif
