/* campaign_content.c: YAML into the JSON of a shared content. What its fields may be is the decoder's to say. */
#include "campaign_content.h"
#include "cli.h"
#include "compose.h"
#include "control/config/yaml.h"
#include "control/fetch/fetch.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <wolfssl/options.h>
#include <wolfssl/wolfcrypt/sha256.h>

enum { BODY_MAX_BYTES = 256 << 20, CONTENT_ERROR_BYTES = 512 };

/* Keys that name a file in a field's place. */
static const struct { const char *key, *field; } file_keys[] = {{"text_file", "text"}, {"html_file", "html"}, {"raw_file", "raw"}};
enum { FILE_KEYS = sizeof file_keys / sizeof *file_keys };

static json_t *node_json(const struct yaml_node *node) {
    json_t *value = NULL;
    switch (node->kind) {
    case YAML_NULL:
        return json_string("");
    case YAML_SCALAR:
        return json_string(node->text);
    case YAML_SEQUENCE:
        value = json_array();
        for (uint32_t i = 0; i < node->count; i++) {
            json_array_append_new(value, node_json(&node->items[i]));
        }
        return value;
    case YAML_MAPPING:
        value = json_object();
        for (uint32_t i = 0; i < node->count; i++) {
            json_object_set_new(value, node->keys[i].text, node_json(&node->items[i]));
        }
    }
    return value;
}

/* A path in the file counts from the file's folder. */
static char *path_beside(const char *file, const char *path) {
    const char *slash = strrchr(file, '/');
    char *whole = NULL;
    if (*path == '/' || !slash) {
        return strdup(path);
    }
    return asprintf(&whole, "%.*s/%s", (int)(slash - file), file, path) < 0 ? NULL : whole;
}

/* The file is read with this user's rights and sent: when it lies elsewhere (an absolute path, "..", a link), that is said. */
static void path_tell(const char *command, const struct yaml_node *node, const char *path) {
    const char *slash = strrchr(node->file, '/');
    char *whole = realpath(path, NULL), *file = slash ? strndup(node->file, (size_t)(slash - node->file) + 1) : strdup(".");
    char *folder = file ? realpath(file, NULL) : NULL;
    size_t length = folder ? strlen(folder) : 0;
    bool beside = whole && folder && strncmp(whole, folder, length) == 0 && (whole[length] == '/' || length == 1);
    if (whole && !beside) {
        cli_complain(CLI_OK, command, "%s:%u: note: %s is sent, a file outside the folder of the content.", node->file, node->line, whole);
    }
    free(whole);
    free(file);
    free(folder);
}

/* False after the complaint, which names the line. */
static bool path_is_readable(const char *command, const struct yaml_node *node, const char *path, int *code) {
    if (access(path, R_OK) != 0) {
        *code = cli_complain(CLI_NO_INPUT, command, "%s:%u: %s cannot be read: %m; correct the path, which counts from this file's folder.",
                             node->file, node->line, path);
        return false;
    }
    path_tell(command, node, path);
    return true;
}

static json_t *body_file(const char *command, const struct yaml_node *node, int *code) {
    if (node->kind != YAML_SCALAR) {
        *code = cli_complain(CLI_DATA, command, "%s:%u: write the path of a file.", node->file, node->line);
        return NULL;
    }
    size_t length = 0;
    char *path = path_beside(node->file, node->text);
    char *text = path && path_is_readable(command, node, path, code) ? cli_read_file(command, path, BODY_MAX_BYTES, &length) : NULL;
    json_t *value = text ? json_stringn(text, length) : NULL;
    if (!text) {
        *code = CLI_NO_INPUT;
    } else if (!value) {
        *code = cli_complain(CLI_DATA, command, "%s:%u: %s is not valid UTF-8; convert it.", node->file, node->line, path);
    }
    free(text);
    free(path);
    return value;
}

/* A path, or {file, filename, content_type, content_id, disposition}. */
static json_t *attachment_json(const char *command, const struct yaml_node *node, int *code) {
    const struct yaml_node *file = node->kind == YAML_MAPPING ? yaml_get(node, "file") : node;
    if (!file || file->kind != YAML_SCALAR) {
        *code = cli_complain(CLI_DATA, command, "%s:%u: an attachment is the path of a file, or a mapping with `file`.", node->file,
                             node->line);
        return NULL;
    }
    char *path = path_beside(file->file, file->text);
    json_t *attachment = path && path_is_readable(command, file, path, code) ? compose_attached(command, path, code) : NULL;
    free(path);
    for (uint32_t i = 0; attachment && node->kind == YAML_MAPPING && i < node->count; i++) {
        if (&node->items[i] != file) {
            json_object_set_new(attachment, node->keys[i].text, node_json(&node->items[i]));
        }
    }
    return attachment;
}

static json_t *attachments_json(const char *command, const struct yaml_node *node, int *code) {
    json_t *list = json_array();
    if (node->kind != YAML_SEQUENCE) {
        *code = cli_complain(CLI_DATA, command, "%s:%u: attachments are a list of files.", node->file, node->line);
    }
    for (uint32_t i = 0; *code == CLI_OK && i < node->count; i++) {
        json_array_append_new(list, attachment_json(command, &node->items[i], code));
    }
    return list;
}

static int field_take(const char *command, const struct yaml_node *key, const struct yaml_node *node, json_t *tree) {
    int code = CLI_OK;
    const char *field = key->text;
    json_t *value = NULL;
    for (int i = 0; i < FILE_KEYS; i++) {
        if (strcmp(key->text, file_keys[i].key) == 0) {
            field = file_keys[i].field;
            value = body_file(command, node, &code);
        }
    }
    if (field == key->text && strcmp(field, "attachments") == 0) {
        value = attachments_json(command, node, &code);
    } else if (field == key->text && strcmp(field, "dsn") == 0 && node->kind == YAML_SCALAR &&
               (strcmp(node->text, "true") == 0 || strcmp(node->text, "false") == 0)) {
        value = json_boolean(*node->text == 't');
    } else if (field == key->text) {
        value = node_json(node);
    }
    if (code == CLI_OK && json_object_get(tree, field)) {
        code = cli_complain(CLI_DATA, command, "%s:%u: %s was given before: give it once.", key->file, key->line, field);
    }
    if (code != CLI_OK || json_object_set_new(tree, field, value) != 0) {
        if (code != CLI_OK) {
            json_decref(value);
        }
        return code != CLI_OK ? code : cli_complain(CLI_FAILED, command, "out of memory.");
    }
    return CLI_OK;
}

static int content_identify(const char *command, struct campaign_content *content) {
    wc_Sha256 sha;
    uint8_t digest[WC_SHA256_DIGEST_SIZE];
    content->text = json_dumps(content->tree, JSON_COMPACT | JSON_SORT_KEYS);
    if (!content->text || wc_InitSha256(&sha) != 0) {
        return cli_complain(CLI_FAILED, command, "out of memory.");
    }
    bool good =
        wc_Sha256Update(&sha, (const uint8_t *)content->text, (word32)strlen(content->text)) == 0 && wc_Sha256Final(&sha, digest) == 0;
    wc_Sha256Free(&sha);
    for (int i = 0; i < (CONTENT_ID_BYTES - 1) / 2; i++) {
        snprintf(content->id + 2 * i, 3, "%02x", digest[i]);
    }
    return good ? CLI_OK : cli_complain(CLI_FAILED, command, "the content cannot be hashed.");
}

int campaign_content_read(const char *command, const char *path, const struct config *config, struct campaign_content *content) {
    struct yaml_node root;
    struct config_errors errors = {0};
    char error[CONTENT_ERROR_BYTES];
    int code = CLI_OK;
    *content = (struct campaign_content){.tree = json_object()};
    if (access(path, R_OK) != 0) {
        return cli_complain(CLI_NO_INPUT, command, "%s cannot be read: %m.", path);
    }
    bool read = yaml_read(path, &root, &errors);
    if (!read) {
        code = cli_complain(CLI_DATA, command, "%s is no content: mend the file, or name another with --content.", path);
        config_errors_print(&errors, stderr);
    } else if (root.kind != YAML_MAPPING) {
        code = cli_complain(CLI_DATA, command, "%s: a content is a mapping with from, subject, text or html.", path);
    }
    config_errors_free(&errors);
    for (uint32_t i = 0; code == CLI_OK && i < root.count; i++) {
        code = field_take(command, &root.keys[i], &root.items[i], content->tree);
    }
    if (read) {
        yaml_free(&root);
    }
    code = code == CLI_OK ? content_identify(command, content) : code;
    if (code == CLI_OK) {
        struct job *job = job_decode_content((const uint8_t *)content->text, strlen(content->text), config, error, sizeof error);
        if (!job || !variables_read(&content->variables, job, config, error)) {
            code = cli_complain(CLI_DATA, command, "%s: %s", path, error);
        }
        job_release(job);
    }
    return code;
}

void campaign_content_free(struct campaign_content *content) {
    json_decref(content->tree);
    free(content->text);
    variables_free(&content->variables);
    *content = (struct campaign_content){.tree = NULL};
}
