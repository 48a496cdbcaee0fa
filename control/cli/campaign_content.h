/* campaign_content.h: the content of a campaign from YAML, as it is stored for all its recipients. */
#ifndef CONTROL_CLI_CAMPAIGN_CONTENT_H
#define CONTROL_CLI_CAMPAIGN_CONTENT_H

#include "campaign_variables.h"
#include "control/config/config.h"

#include <jansson.h>

enum { CONTENT_ID_BYTES = 33 };

struct campaign_content {
    json_t *tree;
    char *text;                 /* the tree as compact JSON, malloc'd */
    char id[CONTENT_ID_BYTES];  /* of the text: the same content has the same ID */
    struct variables variables; /* what it wants of each recipient */
};

/* Reads the file and those that it names (relative to its folder), and checks it as the sender will. An exit code, after the error was
 * printed. Free with campaign_content_free in any case. */
int campaign_content_read(const char *command, const char *path, const struct config *config, struct campaign_content *content);
void campaign_content_free(struct campaign_content *content);

#endif
