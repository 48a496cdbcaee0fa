/* command.c: every append is bounded by the buffer, and takes itself back when it does not fit whole. */
#include "command.h"

#include <bypost/slot.h>
#include <stddef.h>
#include <string.h>

static void release(struct tcp_owner *owner) {
    struct command *command = (struct command *)owner;
    pool_give(command->pool, command);
}
static_assert(offsetof(struct command, owner) == 0, "the owner is the command");

struct command *command_take(struct pool *pool) {
    struct command *command = pool_take(pool);
    if (!command)
        return NULL;
    command->owner = (struct tcp_owner){.references = 1, .release = release};
    command->pool = pool;
    command->length = 0;
    return command;
}

void command_drop(struct command *command) {
    if (--command->owner.references == 0)
        release(&command->owner);
}

enum command_fault command_check_address(const char *address, uint32_t length, bool utf8) {
    bool beyond_ascii = false;
    for (uint32_t i = 0; i < length; i++) {
        unsigned char byte = (unsigned char)address[i];
        if (byte <= ' ' || byte == 0x7f || byte == '<' || byte == '>')
            return COMMAND_BAD_ADDRESS;
        beyond_ascii |= byte >= 0x80;
    }
    return beyond_ascii && !utf8 ? COMMAND_NEEDS_UTF8 : COMMAND_FINE;
}

static bool is_hexadecimal(char byte) {
    return (byte >= '0' && byte <= '9') || (byte >= 'A' && byte <= 'F');
}

bool command_is_xtext(const char *text, uint32_t length) {
    for (uint32_t i = 0; i < length; i++) {
        if (text[i] <= ' ' || text[i] > '~' || text[i] == '=')
            return false;
        if (text[i] == '+' && (length - i < 3 || !is_hexadecimal(text[i + 1]) || !is_hexadecimal(text[i + 2])))
            return false;
    }
    return true;
}

static bool append(struct command *command, const char *bytes, size_t length) {
    if (length > COMMAND_TEXT_BYTES - (size_t)command->length)
        return false;
    memcpy(command->text + command->length, bytes, length);
    command->length = (uint16_t)(command->length + length);
    return true;
}

enum command_fault command_line(struct command *command, const char *verb, const char *argument) {
    uint16_t before = command->length;
    if (append(command, verb, strlen(verb)) && (!argument || (append(command, " ", 1) && append(command, argument, strlen(argument)))) &&
        append(command, "\r\n", 2))
        return COMMAND_FINE;
    command->length = before;
    return COMMAND_FULL;
}

static enum command_fault append_path(struct command *command, const char *verb, const char *address, uint32_t length,
                                      const char *parameters, bool utf8) {
    uint16_t before = command->length;
    enum command_fault fault = COMMAND_FULL;
    if (append(command, verb, strlen(verb)) && append(command, address, length)) {
        fault = command_check_address(command->text + command->length - length, length, utf8);
        if (fault == COMMAND_FINE &&
            (!append(command, ">", 1) || !append(command, parameters, strlen(parameters)) || !append(command, "\r\n", 2)))
            fault = COMMAND_FULL;
    }
    if (fault != COMMAND_FINE)
        command->length = before;
    return fault;
}

enum command_fault command_mail(struct command *command, const char *sender, uint32_t length, const char *parameters, bool utf8) {
    return append_path(command, "MAIL FROM:<", sender, length, parameters, utf8);
}

enum command_fault command_rcpt(struct command *command, const char *recipient, uint32_t length, const char *parameters, bool utf8) {
    return append_path(command, "RCPT TO:<", recipient, length, parameters, utf8);
}

/* xtext (RFC 3461 section 4), or with `utf8` utf-8-addr-unitext (RFC 6533 section 3), which escapes as \x{2B}. Bytes, or 0: no room. */
static uint32_t encode_address(char *to, uint32_t room, const char *address, uint32_t length, bool utf8) {
    static const char digits[] = "0123456789ABCDEF";
    uint32_t at = 0;
    for (uint32_t i = 0; i < length; i++) {
        unsigned char byte = (unsigned char)address[i];
        bool plain = byte > ' ' && byte != 0x7f && byte != '+' && byte != '=' && (utf8 ? byte != '\\' : byte < 0x7f);
        uint32_t bytes = plain ? 1 : utf8 ? 6 : 3;
        if (bytes > room - at)
            return 0;
        if (plain) {
            to[at] = (char)byte;
        } else if (utf8) {
            memcpy(to + at, "\\x{", 3);
            to[at + 3] = digits[byte >> 4];
            to[at + 4] = digits[byte & 15];
            to[at + 5] = '}';
        } else {
            to[at] = '+';
            to[at + 1] = digits[byte >> 4];
            to[at + 2] = digits[byte & 15];
        }
        at += bytes;
    }
    return at;
}

static bool goes_beyond_ascii(const char *text, uint32_t length) {
    for (uint32_t i = 0; i < length; i++) {
        if ((unsigned char)text[i] >= 0x80)
            return true;
    }
    return false;
}

void command_notify(char parameters[COMMAND_NOTIFY_BYTES], uint8_t dsn, const char *recipient, uint32_t length) {
    static const struct {
        uint8_t bit;
        const char *word;
    } words[] = {{SLOT_NOTIFY_SUCCESS, "SUCCESS"}, {SLOT_NOTIFY_FAILURE, "FAILURE"}, {SLOT_NOTIFY_DELAY, "DELAY"}};
    char *to = stpcpy(parameters, " NOTIFY=");
    if (dsn & SLOT_NOTIFY_NEVER) { /* it stands alone */
        to = stpcpy(to, "NEVER");
    } else {
        for (size_t i = 0, said = 0; i < sizeof(words) / sizeof(words[0]); i++) {
            if (dsn & words[i].bit)
                to = stpcpy(stpcpy(to, said++ ? "," : ""), words[i].word);
        }
    }
    bool utf8 = goes_beyond_ascii(recipient, length);
    char *orcpt = to, *type = stpcpy(to, " ORCPT=");
    to = stpcpy(type, utf8 ? "utf-8;" : "rfc822;");
    uint32_t written = encode_address(to, COMMAND_ORCPT_MAX - (uint32_t)(to - type), recipient, length, utf8);
    *(written ? to + written : orcpt) = '\0';
}
