/* gmime_probe.c: what GMime reads in messages, for test_messages. Standard input: for each "LENGTH\n" and the message. Standard output: a
 * line of JSON each. Text that GMime hands out as no UTF-8 is shown with U+FFFD. */
#include <gmime/gmime.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void die(const char *what) {
    fprintf(stderr, "gmime_probe: %s\n", what);
    exit(2);
}

static json_t *text_json(const char *text) {
    if (text == NULL)
        return json_null();
    char *valid = g_utf8_make_valid(text, -1);
    json_t *json = json_string(valid);
    g_free(valid);
    return json;
}

static json_t *mailboxes_json(InternetAddressList *list) {
    json_t *out = json_array();
    for (int i = 0; list != NULL && i < internet_address_list_length(list); i++) {
        InternetAddress *address = internet_address_list_get_address(list, i);
        json_t *mailbox = json_array();
        json_array_append_new(mailbox, text_json(internet_address_get_name(address)));
        if (INTERNET_ADDRESS_IS_MAILBOX(address)) /* the other getter makes U-labels of what stands there */
            json_array_append_new(mailbox, text_json(internet_address_mailbox_get_idn_addr(INTERNET_ADDRESS_MAILBOX(address))));
        json_array_append_new(out, mailbox);
    }
    return out;
}

/* Name and value, decoded (RFC 2047). */
static json_t *fields_json(GMimeObject *object) {
    json_t *out = json_array();
    GMimeHeaderList *headers = g_mime_object_get_header_list(object);
    for (int i = 0; i < g_mime_header_list_get_count(headers); i++) {
        GMimeHeader *header = g_mime_header_list_get_header_at(headers, i);
        char *unfolded = g_mime_utils_header_unfold(g_mime_header_get_raw_value(header));
        char *decoded = g_mime_utils_header_decode_text(NULL, unfolded);
        json_t *field = json_array();
        json_array_append_new(field, text_json(g_mime_header_get_name(header)));
        json_array_append_new(field, text_json(decoded));
        json_array_append_new(out, field);
        g_free(unfolded);
        g_free(decoded);
    }
    return out;
}

static json_t *bytes_json(GMimePart *part) {
    GMimeDataWrapper *content = g_mime_part_get_content(part);
    GMimeStream *stream = g_mime_stream_mem_new();
    if (content != NULL)
        g_mime_data_wrapper_write_to_stream(content, stream);
    const GByteArray *bytes = g_mime_stream_mem_get_byte_array(GMIME_STREAM_MEM(stream));
    char *base64 = g_base64_encode(bytes->data, bytes->len);
    json_t *json = json_string(base64);
    g_free(base64);
    g_object_unref(stream);
    return json;
}

static json_t *object_json(GMimeObject *object) {
    json_t *out = json_object();
    GMimeContentType *type = g_mime_object_get_content_type(object);
    char *mime = g_mime_content_type_get_mime_type(type);
    json_object_set_new(out, "type", text_json(mime));
    g_free(mime);
    json_t *parameters = json_object();
    GMimeParamList *list = g_mime_content_type_get_parameters(type);
    for (int i = 0; list != NULL && i < g_mime_param_list_length(list); i++) {
        GMimeParam *param = g_mime_param_list_get_parameter_at(list, i);
        json_object_set_new(parameters, g_mime_param_get_name(param), text_json(g_mime_param_get_value(param)));
    }
    json_object_set_new(out, "parameters", parameters);
    json_object_set_new(out, "charset", text_json(g_mime_content_type_get_parameter(type, "charset")));
    json_object_set_new(out, "disposition", text_json(g_mime_object_get_disposition(object)));
    json_object_set_new(out, "content_id", text_json(g_mime_object_get_content_id(object)));
    if (GMIME_IS_MULTIPART(object)) {
        json_t *parts = json_array();
        for (int i = 0; i < g_mime_multipart_get_count(GMIME_MULTIPART(object)); i++)
            json_array_append_new(parts, object_json(g_mime_multipart_get_part(GMIME_MULTIPART(object), i)));
        json_object_set_new(out, "parts", parts);
    } else if (GMIME_IS_PART(object)) {
        json_object_set_new(out, "filename", text_json(g_mime_part_get_filename(GMIME_PART(object))));
        json_object_set_new(out, "bytes", bytes_json(GMIME_PART(object)));
    }
    return out;
}

static json_t *message_json(const char *bytes, size_t length) {
    GMimeStream *stream = g_mime_stream_mem_new_with_buffer(bytes, length);
    GMimeParser *parser = g_mime_parser_new_with_stream(stream);
    GMimeMessage *message = g_mime_parser_construct_message(parser, NULL);
    if (message == NULL)
        die("a message that GMime cannot read");
    json_t *out = json_object();
    json_object_set_new(out, "fields", fields_json(GMIME_OBJECT(message)));
    json_object_set_new(out, "subject", text_json(g_mime_message_get_subject(message)));
    json_object_set_new(out, "message_id", text_json(g_mime_message_get_message_id(message)));
    json_object_set_new(out, "from", mailboxes_json(g_mime_message_get_from(message)));
    json_object_set_new(out, "sender", mailboxes_json(g_mime_message_get_sender(message)));
    json_object_set_new(out, "reply_to", mailboxes_json(g_mime_message_get_reply_to(message)));
    json_object_set_new(out, "to", mailboxes_json(g_mime_message_get_to(message)));
    json_object_set_new(out, "cc", mailboxes_json(g_mime_message_get_cc(message)));
    GMimeObject *body = g_mime_message_get_mime_part(message);
    if (body == NULL)
        die("a message without a body");
    json_object_set_new(out, "body_fields", fields_json(body)); /* MIME's fields of the message itself are there */
    json_object_set_new(out, "body", object_json(body));
    g_object_unref(message);
    g_object_unref(parser);
    g_object_unref(stream);
    return out;
}

int main(void) {
    char line[64];
    g_mime_init();
    while (fgets(line, sizeof(line), stdin) != NULL) {
        size_t length = strtoul(line, NULL, 10);
        char *bytes = malloc(length + 1);
        if (bytes == NULL || fread(bytes, 1, length, stdin) != length)
            die("a message ends early");
        json_t *json = message_json(bytes, length);
        json_dumpf(json, stdout, JSON_COMPACT);
        putchar('\n');
        json_decref(json);
        free(bytes);
    }
    g_mime_shutdown();
    return fflush(stdout) == 0 ? 0 : 2;
}
