/* campaign_rows.h: recipients from a file of any length in constant memory: CSV (RFC 4180) with a header, or JSON Lines. */
#ifndef CONTROL_CLI_CAMPAIGN_ROWS_H
#define CONTROL_CLI_CAMPAIGN_ROWS_H

#include "control/render/writer.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    ROWS_BLOCK_BYTES = 1 << 20, /* read at a time */
    ROW_MAX_BYTES = 256 << 10,  /* a longer row is wrong: most likely a quote that does not end */
    ROWS_COLUMNS_MAX = 500,
    ROWS_MAPS_MAX = 100,
    ROW_ERROR_BYTES = 300,
};

enum rows_format { ROWS_CSV, ROWS_JSON };

/* What a column becomes. */
enum column_role { COLUMN_IGNORED, COLUMN_ADDRESS, COLUMN_NAME, COLUMN_MERGE, COLUMN_METADATA };

struct rows_column {
    enum column_role role;
    char *key;   /* a JSON string with its colon, for merge data and metadata */
    char *title; /* as the header has it */
};

struct rows_field {
    size_t at, end; /* from the row's beginning */
    bool doubled;   /* holds quotes that stand for one each */
};

struct rows {
    int descriptor;
    bool ended; /* nothing more to read */
    enum rows_format format;
    char delimiter;
    uint8_t *bytes; /* [begin, end) is still to be looked at */
    size_t begin, end, room;
    uint64_t taken;      /* bytes of rows that were handed out, for progress */
    uint64_t line;       /* of what stands at begin, from 1 */
    bool address_merges; /* the address is merge data too: the content names it */
    uint32_t column_count;
    struct rows_column columns[ROWS_COLUMNS_MAX];
    struct rows_field fields[ROWS_COLUMNS_MAX];
    uint32_t field_count;
    /* Of the last row: nothing in it that the decoder could refuse, when another row of the file was taken. Then, where the address is in
     * what was written. */
    bool plain;
    size_t address_at, address_length;
};

enum row_result {
    ROW_GOOD, /* a recipient was written */
    ROW_BAD,  /* a row is wrong; `error` says why, and the next one can be taken */
    ROW_END,
    ROW_FAULT, /* the file cannot be read further */
};

/* Looks at what the descriptor gives first and tells CSV from JSON Lines ("{" comes first). `maps` are "COLUMN=FIELD": to, name,
 * metadata.KEY, a name of merge data, or "-" to leave the column out. False with a sentence in error[ROW_ERROR_BYTES]. Closes nothing. */
bool rows_open(struct rows *rows, int descriptor, const char *const *maps, uint32_t map_count, char *error);
void rows_close(struct rows *rows);
/* Whether every recipient of a CSV file gets merge data of this name: its column is there. The display name is merge data as well, and so
 * is the address, when address_merges is set. */
bool rows_merges(const struct rows *rows, const char *name);
/* Appends the next recipient, a JSON object as in a job's recipients[], to `out`. *line: where the row begins. What a recipient may be is
 * the decoder's to say: a good row is one that could be taken apart. */
enum row_result rows_next(struct rows *rows, struct writer *out, uint64_t *line, char *error);

#endif
