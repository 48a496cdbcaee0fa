/* library.h: the text of the Redis Function library (the parts beside it, joined), built into the program. */
#ifndef CONTROL_LIBRARY_LIBRARY_H
#define CONTROL_LIBRARY_LIBRARY_H

const char *library_text(void);
/* The number in its line "local VERSION = N". */
unsigned library_version(void);

#endif
