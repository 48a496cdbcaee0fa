/* campaign_variables.h: the variables of a content, and whether its recipients bring a value for each: a campaign that nobody can have is
 * refused before it is written. */
#ifndef CONTROL_CLI_CAMPAIGN_VARIABLES_H
#define CONTROL_CLI_CAMPAIGN_VARIABLES_H

#include "campaign_rows.h"
#include "control/config/config.h"
#include "control/job.h"

#include <jansson.h>

enum { VARIABLES_MAX = 500 };

struct merge;

struct variables {
    uint32_t count;
    char *names[VARIABLES_MAX]; /* each once, of those that no section guards; without those that merge_global_data has */
    char *global_text;          /* merge_global_data, or NULL */
    struct merge *global;
    bool has_url, has_mailto; /* {{bypost.unsubscribe_url}}, {{bypost.unsubscribe_mailto}} */
};

/* What subject, texts, headers and fields of bulk mail of a decoded content name. False with a sentence in error[ROW_ERROR_BYTES]: a
 * template is malformed, names something of bypost's that there is not, or there are too many. variables_free in any case. */
bool variables_read(struct variables *variables, const struct job *content, const struct config *config, char *error);
bool variables_has(const struct variables *variables, const char *name);
/* The first name that no column of the CSV file gives, or NULL. */
const char *variables_missing_column(const struct variables *variables, const struct rows *rows);
/* The columns of the file as a list for a sentence, malloc'd. */
char *variables_columns(const struct rows *rows);
/* Whether a recipient's merge_data (JSON text, or NULL) has a value for each. False with a sentence. */
bool variables_given(const struct variables *variables, const char *merge_data, char *error);
void variables_free(struct variables *variables);

#endif
