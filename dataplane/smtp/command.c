/* command.c: every append is bounded by the buffer, and takes itself back when it does not fit whole. */
#include "command.h"

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

enum command_fault command_rcpt(struct command *command, const char *recipient, uint32_t length, bool utf8) {
    return append_path(command, "RCPT TO:<", recipient, length, "", utf8);
}
