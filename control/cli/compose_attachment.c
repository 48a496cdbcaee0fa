/* compose_attachment.c: files as attachments and inline images of a job. */
#include "cli.h"
#include "compose.h"
#include "control/render/encode.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

enum { ATTACHMENT_MAX_BYTES = 256 << 20 };
static const char name[] = "submit";

/* The types that receivers open by themselves (IANA's registry). Messages are not among them: they may not travel in base64 (RFC 2046
 * 5.2.1). */
static const struct {
    const char *suffix, *type;
} types[] = {{".7z", "application/x-7z-compressed"},
             {".aac", "audio/aac"},
             {".avif", "image/avif"},
             {".bmp", "image/bmp"},
             {".csv", "text/csv"},
             {".doc", "application/msword"},
             {".docx", "application/vnd.openxmlformats-officedocument.wordprocessingml.document"},
             {".epub", "application/epub+zip"},
             {".gif", "image/gif"},
             {".gz", "application/gzip"},
             {".heic", "image/heic"},
             {".htm", "text/html"},
             {".html", "text/html"},
             {".ics", "text/calendar"},
             {".jpeg", "image/jpeg"},
             {".jpg", "image/jpeg"},
             {".json", "application/json"},
             {".md", "text/markdown"},
             {".mp3", "audio/mpeg"},
             {".mp4", "video/mp4"},
             {".odp", "application/vnd.oasis.opendocument.presentation"},
             {".ods", "application/vnd.oasis.opendocument.spreadsheet"},
             {".odt", "application/vnd.oasis.opendocument.text"},
             {".ogg", "audio/ogg"},
             {".pdf", "application/pdf"},
             {".png", "image/png"},
             {".ppt", "application/vnd.ms-powerpoint"},
             {".pptx", "application/vnd.openxmlformats-officedocument.presentationml.presentation"},
             {".rtf", "application/rtf"},
             {".svg", "image/svg+xml"},
             {".tar", "application/x-tar"},
             {".tif", "image/tiff"},
             {".tiff", "image/tiff"},
             {".txt", "text/plain"},
             {".vcf", "text/vcard"},
             {".wav", "audio/wav"},
             {".webm", "video/webm"},
             {".webp", "image/webp"},
             {".xls", "application/vnd.ms-excel"},
             {".xlsx", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"},
             {".xml", "application/xml"},
             {".zip", "application/zip"}};

static const char *content_type(const char *filename) {
    const char *dot = strrchr(filename, '.');
    for (size_t i = 0; dot && i < sizeof types / sizeof *types; i++) {
        if (strcasecmp(dot, types[i].suffix) == 0) {
            return types[i].type;
        }
    }
    return "application/octet-stream";
}

static const char *file_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static bool is_utf8(const char *bytes, size_t length) {
    json_t *text = json_stringn(bytes, length);
    json_decref(text);
    return text != NULL;
}

/* type: or NULL, by the suffix. */
static json_t *attachment_read(const char *command, const char *path, const char *type, int *code) {
    size_t length;
    const char *filename = file_name(path);
    char *bytes = cli_read_file(command, path, ATTACHMENT_MAX_BYTES, &length);
    if (!bytes) {
        *code = CLI_NO_INPUT;
        return NULL;
    }
    char *content = malloc((length + 2) / 3 * 4 + 1);
    if (content) {
        content[base64_write(content, (const uint8_t *)bytes, length)] = 0;
    }
    bool text = !type && strncmp(content_type(filename), "text/", 5) == 0 && is_utf8(bytes, length);
    json_t *attachment = json_pack("{s:s,s:s+,s:s}", "filename", filename, "content_type", type ? type : content_type(filename),
                                   text ? "; charset=utf-8" : "", "content", content ? content : "");
    free(content);
    free(bytes);
    if (!attachment) {
        *code = cli_complain(CLI_DATA, command, "%s: the file's name or type is not valid UTF-8; rename it.", path);
    }
    return attachment;
}

json_t *compose_attached(const char *command, const char *path, int *code) {
    return attachment_read(command, path, NULL, code);
}

/* FILE or FILE:TYPE; a file of the whole name is meant first. The path, malloc'd; NULL: there is no such file. *type: or NULL. */
static char *path_take(const char *value, const char **type) {
    *type = NULL;
    if (access(value, F_OK) == 0) {
        return strdup(value);
    }
    for (size_t at = strlen(value); at > 1; at--) {
        char *path = value[at - 1] == ':' && value[at] ? strndup(value, at - 1) : NULL;
        if (path && access(path, F_OK) == 0) {
            *type = value + at;
            return path;
        }
        free(path);
    }
    return NULL;
}

static bool attachment_add(json_t *job, json_t *attachment, int *code) {
    json_t *list = json_object_get(job, "attachments");
    if (!list) {
        json_object_set_new(job, "attachments", list = json_array());
    }
    if (json_array_append_new(list, attachment) != 0) {
        *code = cli_complain(CLI_FAILED, name, "out of memory.");
        return false;
    }
    return true;
}

bool compose_attachment(json_t *job, const char *value, int *code) {
    const char *type;
    char *path = path_take(value, &type);
    json_t *attachment = attachment_read(name, path ? path : value, type, code);
    free(path);
    return attachment && attachment_add(job, attachment, code);
}

bool compose_inline(json_t *job, const char *value, int *code) {
    const char *type, *equals = strchr(value, '=');
    char *path = path_take(value, &type), *id = NULL;
    if (!path && equals && equals > value) {
        path = path_take(equals + 1, &type);
        id = path ? strndup(value, (size_t)(equals - value)) : NULL;
    }
    const char *shown = path ? path : value;
    json_t *attachment = attachment_read(name, shown, type, code);
    if (attachment && (json_object_set_new(attachment, "content_id", json_string(id ? id : file_name(shown))) != 0 ||
                       json_object_set_new(attachment, "disposition", json_string("inline")) != 0)) {
        json_decref(attachment);
        attachment = NULL;
        *code = cli_complain(CLI_DATA, name, "--inline: the ID is not valid UTF-8; write letters and digits.");
    }
    free(path);
    free(id);
    return attachment && attachment_add(job, attachment, code);
}
