/* library.c: the Redis Function library as a string. */
#include "library.h"

#include <stdlib.h>
#include <string.h>

static const char text[] =
#include "bypost_lua.inc"
    ;

const char *library_text(void) {
    return text;
}

unsigned library_version(void) {
    static const char mark[] = "local VERSION = ";
    const char *line = strstr(text, mark);
    return line ? (unsigned)strtoul(line + sizeof mark - 1, NULL, 10) : 0;
}
